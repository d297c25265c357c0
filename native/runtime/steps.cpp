#include "runtime/step.h"

namespace fastcnn {

std::unique_ptr<Step> make_direct(const StepSpec&);
std::unique_ptr<Step> make_transposed(const StepSpec&);
std::unique_ptr<Step> make_tiles(const StepSpec&);
std::unique_ptr<Step> make_fft_depthwise(const StepSpec&);
std::unique_ptr<Step> make_amx(const StepSpec&);
std::unique_ptr<Step> make_depthwise(const StepSpec&);
std::unique_ptr<Step> make_pool(const StepSpec&);
std::unique_ptr<Step> make_unary(const StepSpec&);
std::unique_ptr<Step> make_binary(const StepSpec&);
std::unique_ptr<Step> make_scale_shift(const StepSpec&);
std::unique_ptr<Step> make_softmax(const StepSpec&);
std::unique_ptr<Step> make_reduce(const StepSpec&);
std::unique_ptr<Step> make_math(const StepSpec&);
std::unique_ptr<Step> make_relayout(const StepSpec&);
std::unique_ptr<Step> make_copy_region(const StepSpec&);
std::unique_ptr<Step> make_strided_copy(const StepSpec&);
std::unique_ptr<Step> make_fill(const StepSpec&);
std::unique_ptr<Step> make_resize(const StepSpec&);
std::unique_ptr<Step> make_gather(const StepSpec&);
std::unique_ptr<Step> make_local_response_norm(const StepSpec&);
std::unique_ptr<Step> make_group_norm(const StepSpec&);
std::unique_ptr<Step> make_layer_norm(const StepSpec&);
std::unique_ptr<Step> make_matmul(const StepSpec&);
std::unique_ptr<Step> make_unpool(const StepSpec&);
std::unique_ptr<Step> make_spectral(const StepSpec&);
std::unique_ptr<Step> make_fastfood(const StepSpec&);
std::unique_ptr<Step> make_block_circulant(const StepSpec&);
std::unique_ptr<Step> make_signs(const StepSpec&);
std::unique_ptr<Step> make_sign_conv(const StepSpec&);
std::unique_ptr<Step> make_sign_amx(const StepSpec&);
std::unique_ptr<Step> make_sign_pool(const StepSpec&);
std::unique_ptr<Step> make_bytes(const StepSpec&);
std::unique_ptr<Step> make_bytes_to_floats(const StepSpec&);
std::unique_ptr<Step> make_byte_pool(const StepSpec&);
std::unique_ptr<Step> make_int8_conv(const StepSpec&);
std::unique_ptr<Step> make_int8_amx(const StepSpec&);
std::unique_ptr<Step> make_int8_depthwise(const StepSpec&);

static const std::map<std::string, StepFactory>& factories() {
  static const std::map<std::string, StepFactory> table = {
      {"direct", make_direct},
      {"transposed", make_transposed},
      {"winograd", make_tiles},
      {"fft", make_tiles},
      {"fft_depthwise", make_fft_depthwise},
      {"amx", make_amx},
      {"depthwise", make_depthwise},
      {"pool", make_pool},
      {"unary", make_unary},
      {"binary", make_binary},
      {"scale_shift", make_scale_shift},
      {"softmax", make_softmax},
      {"reduce", make_reduce},
      {"math", make_math},
      {"relayout", make_relayout},
      {"copy_region", make_copy_region},
      {"strided_copy", make_strided_copy},
      {"fill", make_fill},
      {"resize", make_resize},
      {"gather", make_gather},
      {"local_response_norm", make_local_response_norm},
      {"group_norm", make_group_norm},
      {"layer_norm", make_layer_norm},
      {"matmul", make_matmul},
      {"unpool", make_unpool},
      {"spectral", make_spectral},
      {"fastfood", make_fastfood},
      {"block_circulant", make_block_circulant},
      {"signs", make_signs},
      {"sign_conv", make_sign_conv},
      {"sign_amx", make_sign_amx},
      {"sign_pool", make_sign_pool},
      {"bytes", make_bytes},
      {"bytes_to_floats", make_bytes_to_floats},
      {"byte_pool", make_byte_pool},
      {"int8_conv", make_int8_conv},
      {"int8_amx", make_int8_amx},
      {"int8_depthwise", make_int8_depthwise},
  };
  return table;
}

std::unique_ptr<Step> make_step(const StepSpec& spec) {
  const auto it = factories().find(spec.op);
  if (it == factories().end()) throw std::invalid_argument("the runtime has no step '" + spec.op + "'");
  for (const Tensor* t : {&spec.out, spec.in.empty() ? &spec.out : &spec.in.front()}) {
    if (t->n < 1 || t->c < 1 || t->h < 1 || t->w < 1 || static_cast<int64_t>(t->h) * t->w > INT32_MAX / 2) {
      throw std::invalid_argument("step " + spec.op + ": a map is empty or has too many pixels");
    }
  }
  std::unique_ptr<Step> step = it->second(spec);
  step->out = spec.out;
  step->zero_border = spec.out.has_border() && spec.integer("zero_border", 1) != 0;
  step->border = static_cast<uint32_t>(spec.integer("border", 0) & 255) * 0x01010101u;
  return step;
}

std::vector<std::string> step_ops() {
  std::vector<std::string> names;
  for (const auto& entry : factories()) names.push_back(entry.first);
  return names;
}

Activation parse_activation(const StepSpec& spec) {
  static const std::map<std::string, Act> kinds = {
      {"none", Act::kNone},
      {"clamp", Act::kClamp},
      {"silu", Act::kSilu},
      {"hardswish", Act::kHardswish},
      {"hardsigmoid", Act::kHardsigmoid},
      {"sigmoid", Act::kSigmoid},
      {"tanh", Act::kTanh},
      {"gelu", Act::kGelu},
      {"gelu_tanh", Act::kGeluTanh},
      {"leaky_relu", Act::kLeakyRelu},
      {"elu", Act::kElu},
      {"prelu", Act::kPrelu},
      {"exp", Act::kExp},
      {"softplus", Act::kSoftplus},
      {"mish", Act::kMish},
  };
  const std::string word = spec.word("act", "none");
  const auto it = kinds.find(word);
  if (it == kinds.end()) throw std::invalid_argument("step " + spec.op + ": unknown activation '" + word + "'");
  Activation act;
  act.kind = it->second;
  if (act.kind == Act::kClamp) {
    act.lo = static_cast<float>(spec.number("act_lo"));
    act.hi = static_cast<float>(spec.number("act_hi"));
  }
  if (act.kind == Act::kLeakyRelu || act.kind == Act::kElu) act.alpha = static_cast<float>(spec.number("act_alpha"));
  return act;
}

static Buffer padded(const FloatArray& array, size_t floats) {
  Buffer buffer(floats);
  if (array.size > floats) throw std::invalid_argument("a per-channel weight is longer than the channels");
  for (size_t i = 0; i < array.size; ++i) buffer.data()[i] = array.data[i];
  return buffer;
}

Epilogue parse_epilogue(const StepSpec& spec, int blocks, int lanes) {
  Epilogue e;
  e.act = parse_activation(spec);
  e.act_before_residual = spec.integer("act_before_residual", 0) != 0;
  e.has_residual = spec.integer("residual", 0) != 0;
  const size_t floats = static_cast<size_t>(blocks) * static_cast<size_t>(lanes);
  if (spec.has_weight("bias")) e.bias = padded(spec.weight("bias"), floats);
  if (e.act.kind == Act::kPrelu) {
    e.slope = padded(spec.weight("slope"), floats);
    e.act.slope = e.slope.data();
  }
  return e;
}

}  // namespace fastcnn
