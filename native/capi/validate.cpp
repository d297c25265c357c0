#include "capi/validate.h"

#include <algorithm>

#include "capi/rules.h"

namespace fastcnn {

const std::map<std::string, Rule>& step_rules() {
  static const std::map<std::string, Rule> table = {
      {"direct", direct_rule},
      {"transposed", transposed_rule},
      {"winograd", winograd_rule},
      {"fft", fft_rule},
      {"fft_depthwise", fft_depthwise_rule},
      {"amx", amx_rule},
      {"depthwise", depthwise_rule},
      {"pool", pool_rule},
      {"unary", unary_rule},
      {"binary", binary_rule},
      {"scale_shift", scale_shift_rule},
      {"softmax", softmax_rule},
      {"reduce", reduce_rule},
      {"math", math_rule},
      {"matmul", matmul_rule},
      {"relayout", relayout_rule},
      {"copy_region", copy_region_rule},
      {"strided_copy", strided_copy_rule},
      {"gather", gather_rule},
      {"fill", fill_rule},
      {"resize", resize_rule},
      {"unpool", unpool_rule},
      {"local_response_norm", local_response_norm_rule},
      {"group_norm", group_norm_rule},
      {"layer_norm", layer_norm_rule},
      {"spectral", spectral_rule},
      {"fastfood", fastfood_rule},
      {"block_circulant", block_circulant_rule},
      {"signs", signs_rule},
      {"sign_pool", sign_pool_rule},
      {"sign_conv", sign_conv_rule},
      {"sign_amx", sign_amx_rule},
      {"bytes", bytes_rule},
      {"bytes_to_floats", bytes_to_floats_rule},
      {"byte_pool", byte_pool_rule},
      {"int8_conv", int8_conv_rule},
      {"int8_amx", int8_amx_rule},
      {"int8_depthwise", int8_depthwise_rule},
  };
  return table;
}

std::vector<std::string> validated_ops() {
  std::vector<std::string> names;
  for (const auto& entry : step_rules()) names.push_back(entry.first);
  return names;
}

Memory validate(const Program& program) {
  Memory memory;
  std::vector<bool> written(program.outputs.size());
  int64_t floats = 0, past = 0;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const StepSpec& spec = program.steps[i].spec;
    const auto it = step_rules().find(spec.op);
    if (it == step_rules().end()) {
      bad_program("step " + std::to_string(i) + " is '" + spec.op + "', which this library does not know: upgrade it");
    }
    StepRule rule(program, program.steps[i], i);
    floats = std::min(kMost, floats + it->second(rule));
    for (const auto& weight : spec.weights) {
      if (weight.first == "bias" || weight.first == "slope") floats += spec.out.blocks * program.lanes;
    }
    rule.finish();
    memory.packing_bytes = std::max(memory.packing_bytes, rule.packing * 4);
    past = std::max(past, rule.past);
    if (spec.out.space == Space::kOutput) written[static_cast<size_t>(spec.out.index)] = true;
  }
  for (size_t i = 0; i < written.size(); ++i) {
    if (!written[i]) bad_program("no step writes output '" + program.outputs[i].name + "'");
  }
  memory.weight_bytes = floats * 4;
  memory.arena_bytes = (static_cast<int64_t>(program.arena_floats) + past) * 4;
  return memory;
}

}  // namespace fastcnn
