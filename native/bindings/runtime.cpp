// Net, steps and host facts for Python. Arrays cross as float32 C-contiguous numpy arrays; the GIL is released while a
// net runs.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <dlfcn.h>
#include <algorithm>
#include <cmath>

#include "base/isa.h"
#include "base/measure.h"
#include "bindings/bindings.h"
#include "kernels/amx/amx.h"
#include "kernels/bits/bits.h"
#include "kernels/direct/direct.h"
#include "kernels/fft/fft.h"
#include "kernels/int8/int8.h"
#include "kernels/spectral/spectral.h"
#include "kernels/winograd/winograd.h"
#include "runtime/net.h"

namespace nb = nanobind;
using namespace fastcnn;

namespace {

using InArray = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using OutArray = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

int64_t get_int(const nb::dict& d, const char* key) { return nb::cast<int64_t>(d[key]); }

// {"space", "index", "offset", "dims", "blocked", "border": [t, l, b, r], "nchw": [4], "image": stride override or 0,
//  "rows": of a band, else 0, "element": "float", "signs" or "bytes"}
Tensor parse_tensor(const nb::dict& d, int lanes) {
  Tensor t;
  const std::string space = nb::cast<std::string>(d["space"]);
  t.space = space == "arena"   ? Space::kArena
            : space == "input" ? Space::kInput
            : space == "band"  ? Space::kBand
                               : Space::kOutput;
  t.index = static_cast<int>(get_int(d, "index"));
  t.offset = get_int(d, "offset");
  t.dims = nb::cast<std::vector<int64_t>>(d["dims"]);
  t.blocked = nb::cast<bool>(d["blocked"]);
  const auto border = nb::cast<std::vector<int>>(d["border"]);
  const auto nchw = nb::cast<std::vector<int>>(d["nchw"]);
  if (border.size() != 4 || nchw.size() != 4) throw std::invalid_argument("tensor: border and nchw have 4 entries");
  t.top = border[0];
  t.left = border[1];
  t.bottom = border[2];
  t.right = border[3];
  t.n = nchw[0];
  t.c = nchw[1];
  t.h = nchw[2];
  t.w = nchw[3];
  const std::string element = nb::cast<std::string>(d["element"]);
  t.element = element == "signs" ? Element::kSigns : element == "bytes" ? Element::kBytes : Element::kFloat;
  t.lanes = t.blocked ? lanes_of(t.element, t.c, lanes) : 1;
  t.blocks = !t.floats() ? 1 : t.blocked ? (t.c + lanes - 1) / lanes : t.c;
  t.rows = static_cast<int>(get_int(d, "rows"));
  t.set_strides(get_int(d, "image"));
  return t;
}

StepSpec parse_step(const std::string& op, const nb::list& in, const nb::dict& out, const nb::dict& attrs,
                    const nb::dict& weights, int lanes) {
  StepSpec spec;
  spec.op = op;
  for (nb::handle h : in) spec.in.push_back(parse_tensor(nb::cast<nb::dict>(h), lanes));
  if (spec.in.empty() && op != "fill") throw std::invalid_argument("step " + op + ": no input");
  spec.out = parse_tensor(out, lanes);
  for (auto [key, value] : attrs) {
    const std::string name = nb::cast<std::string>(key);
    if (nb::isinstance<nb::str>(value)) {
      spec.words[name] = nb::cast<std::string>(value);
    } else if (nb::isinstance<nb::list>(value) || nb::isinstance<nb::tuple>(value)) {
      spec.lists[name] = nb::cast<std::vector<int64_t>>(value);
    } else {
      spec.numbers[name] = nb::cast<double>(value);
    }
  }
  for (auto [key, value] : weights) {
    // Without conversion: a converted copy would die before the step has packed it.
    InArray array = nb::cast<InArray>(value, false);
    FloatArray w;
    for (size_t i = 0; i < array.ndim(); ++i) w.shape.push_back(static_cast<int64_t>(array.shape(i)));
    w.data = array.data();
    w.size = array.size();
    spec.weights[nb::cast<std::string>(key)] = w;
  }
  return spec;
}

// A malloc counter preloaded by the tests offers this symbol; nowhere else does it exist.
using AllocationCounter = unsigned long (*)();

// Addresses of arrays that are at least as large as the net will read or write.
template <class Pointer, class Array>
std::vector<Pointer> pointers(const std::vector<Array>& arrays, const std::vector<size_t>& floats, const char* what) {
  if (arrays.size() < floats.size()) throw std::invalid_argument(std::string("too few ") + what + " arrays");
  std::vector<Pointer> p;
  for (size_t i = 0; i < arrays.size(); ++i) {
    if (i < floats.size() && arrays[i].size() < floats[i]) {
      throw std::invalid_argument(std::string("an ") + what + " array is smaller than the plan's shape");
    }
    p.push_back(arrays[i].data());
  }
  return p;
}

}  // namespace

void bind_runtime(nb::module_& m) {
  m.def("host", [] {
    const CpuInfo info = cpu_info();
    nb::dict d;
    d["vendor"] = info.vendor;
    d["cpu"] = info.brand;
    d["l1d_bytes"] = info.l1d_bytes;
    d["l2_bytes"] = info.l2_bytes;
    d["l3_bytes"] = info.l3_bytes;
    d["cores"] = info.logical_cores;
    d["isa_detected"] = isa_name(detect_isa());
    d["isa_active"] = isa_name(active_isa());
    nb::list names;
    for (Isa isa : available_isas()) names.append(isa_name(isa));
    d["isa_available"] = names;
    return d;
  });
  m.def("lanes", [](const std::string& isa) { return isa_lanes(isa_from_name(isa)); }, nb::arg("isa"));
  m.def(
      "measure_fma_gmacs", [](int threads) { return measure_fma_gmacs(active_isa(), threads); }, nb::arg("threads"),
      nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "measure_bf16_gmacs", [](int threads) { return measure_bf16_gmacs(active_isa(), threads); }, nb::arg("threads"),
      nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "measure_amx_gmacs", [](int threads) { return measure_amx_gmacs(active_isa(), threads); }, nb::arg("threads"),
      nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "measure_bit_gmacs", [](int threads) { return measure_bit_gmacs(active_isa(), threads); }, nb::arg("threads"),
      nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "measure_read_gbps",
      [](int threads, int megabytes) { return measure_read_gbps(active_isa(), threads, megabytes); },
      nb::arg("threads"), nb::arg("megabytes"), nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "amx",
      [](const std::string& isa) {
        const AmxKernels* kernels = amx_kernels(isa_from_name(isa));
        return kernels == nullptr ? "" : kernels->emulated ? "emulated" : "native";
      },
      nb::arg("isa"), "How the tile registers of AMX are there: native, emulated, or empty");
  m.def(
      "bf16_pays", [](const std::string& isa) { return direct_kernels(isa_from_name(isa)).bf16_pays; }, nb::arg("isa"),
      "Whether products in bf16 are faster than in fp32");
  m.def(
      "direct_configs",
      [](const std::string& isa) {
        const DirectKernels& k = direct_kernels(isa_from_name(isa));
        nb::list all;
        for (int i = 0; i < k.config_count; ++i) all.append(nb::make_tuple(k.configs[i].tile, k.configs[i].panel));
        return all;
      },
      nb::arg("isa"), "(pixels, channel vectors) of the direct kernels, best for many pixels first, for one last");
  m.def(
      "bits_tiles",
      [](const std::string& isa) {
        const BitsKernels& k = bits_kernels(isa_from_name(isa));
        nb::list all;
        for (int i = 0; i < k.tile_count; ++i) all.append(nb::make_tuple(k.tiles[i].vectors, k.tiles[i].pixels));
        return all;
      },
      nb::arg("isa"), "(channel vectors, pixels) of the convolutions of signs, best first");
  m.def(
      "int8_tiles",
      [](const std::string& isa) {
        const Int8Kernels& k = int8_kernels(isa_from_name(isa));
        nb::list all;
        for (int i = 0; i < k.tile_count; ++i) all.append(nb::make_tuple(k.tiles[i].vectors, k.tiles[i].pixels));
        return all;
      },
      nb::arg("isa"), "(channel vectors, pixels) of the convolutions of bytes, best first");
  m.def(
      "tile_group", [](const std::string& isa) { return tile_kernels(isa_from_name(isa)).tile; }, nb::arg("isa"),
      "tiles that the product of tile forms keeps in registers at once");
  m.def(
      "fft_sizes",
      [](const std::string& isa) {
        const FftForms& all = fft_forms(isa_from_name(isa));
        std::vector<int> sizes;
        for (int i = 0; i < all.count; ++i) sizes.push_back(all.forms[i].t_y);
        return sizes;
      },
      nb::arg("isa"), "points along an axis of the FFT tiles there are kernels for");
  m.def(
      "spectral_points",
      [](const std::string& isa) {
        const int lanes = isa_lanes(isa_from_name(isa));
        std::vector<int> found;
        for (int points = 1; points <= 64 * 64; ++points) {
          int first, second;
          if (spectral_split(lanes, points, first, second)) found.push_back(points);
        }
        return found;
      },
      nb::arg("isa"), "complex points of the row transforms there are kernels for, ascending");
  m.def(
      "winograd_forms",
      [](const std::string& isa) {
        const WinogradForms& all = winograd_forms(isa_from_name(isa));
        nb::list forms;
        for (int i = 0; i < all.count; ++i) {
          const WinogradKernel& k = all.forms[i];
          forms.append(nb::make_tuple(std::max(k.m_y, k.m_x), k.r_y, k.r_x));
        }
        return forms;
      },
      nb::arg("isa"), "(m, kernel rows, kernel columns) of the Winograd forms there are kernels for");
  m.def(
      "winograd_matrices",
      [](int mm, int r) {
        double at[16 * 16], g[16 * 16], bt[16 * 16];
        if (!winograd_matrices_copy(mm, r, at, g, bt)) throw std::invalid_argument("no such Winograd form");
        const int t = mm + r - 1;
        const auto list = [](const double* p, int n) { return std::vector<double>(p, p + n); };
        return nb::make_tuple(list(at, mm * t), list(g, t * r), list(bt, t * t));
      },
      nb::arg("m"), nb::arg("r"), "AT (m x t), G (t x r), BT (t x t), row-major");
  m.def("step_ops", &step_ops);
  m.def("return_free_pages", &return_free_pages, nb::call_guard<nb::gil_scoped_release>(),
        "Give the heap's free pages back to the system.");

  nb::class_<Net>(m, "Net")
      .def(
          "__init__",
          [](Net* self, const std::string& isa, int threads) { new (self) Net(isa_from_name(isa), threads); },
          nb::arg("isa"), nb::arg("threads"))
      .def_prop_ro("isa", [](const Net& n) { return isa_name(n.isa()); })
      .def_prop_ro("threads", &Net::threads)
      .def_prop_ro("steps", &Net::steps)
      .def_prop_ro("weight_bytes", &Net::weight_bytes)
      .def_prop_ro("arena_bytes", [](const Net& n) { return n.arena_floats() * sizeof(float); })
      .def_prop_ro("scratch_bytes",
                   [](const Net& n) { return (n.scratch_floats() + n.group_floats()) * sizeof(float); })
      .def("kernel", [](const Net& n, size_t i) { return n.step(i).kernel(); })
      .def("step_weight_bytes", [](const Net& n, size_t i) { return n.step(i).weight_bytes(); })
      .def(
          "add_step",
          [](Net& n, const std::string& op, const nb::list& in, const nb::dict& out, const nb::dict& attrs,
             const nb::dict& weights) {
            return n.add_step(parse_step(op, in, out, attrs, weights, isa_lanes(n.isa())));
          },
          nb::arg("op"), nb::arg("inputs"), nb::arg("out"), nb::arg("attrs"), nb::arg("weights"))
      .def(
          "replace_step",
          [](Net& n, size_t i, const std::string& op, const nb::list& in, const nb::dict& out, const nb::dict& attrs,
             const nb::dict& weights) {
            n.replace_step(i, parse_step(op, in, out, attrs, weights, isa_lanes(n.isa())));
          },
          nb::arg("index"), nb::arg("op"), nb::arg("inputs"), nb::arg("out"), nb::arg("attrs"), nb::arg("weights"))
      .def("set_arena", &Net::set_arena, nb::arg("floats"))
      .def(
          "set_groups",
          [](Net& n, const std::vector<std::vector<size_t>>& groups) {
            std::vector<GroupSpec> specs;
            for (const auto& g : groups) {
              if (g.size() != 3) throw std::invalid_argument("a group is its first step, its last step and its rows");
              specs.push_back({g[0], g[1], static_cast<int>(std::min<size_t>(g[2], INT32_MAX))});
            }
            n.set_groups(specs);
          },
          nb::arg("groups"), "[first step, last step, rows of a band] each, in order; finish() checks them")
      .def("finish", &Net::finish)
      .def("trim", &Net::trim, "gives back scratch memory of steps that were replaced")
      .def("poison", &Net::poison, "Fill all workspaces with NaN (tests)")
      .def(
          "run",
          [](Net& n, const std::vector<InArray>& in, const std::vector<OutArray>& out) {
            const auto inputs = pointers<const float*>(in, n.input_floats(), "input");
            const auto outputs = pointers<float*>(out, n.output_floats(), "output");
            nb::gil_scoped_release release;
            n.run(inputs.data(), outputs.data());
          },
          nb::arg("inputs"), nb::arg("outputs"))
      .def(
          "profile",
          [](Net& n, const std::vector<InArray>& in, const std::vector<OutArray>& out, int repeats) {
            if (repeats < 1 || repeats > 100000) throw std::invalid_argument("repeats must be between 1 and 100000");
            const auto inputs = pointers<const float*>(in, n.input_floats(), "input");
            const auto outputs = pointers<float*>(out, n.output_floats(), "output");
            std::vector<double> times(n.steps() * static_cast<size_t>(repeats));
            {
              nb::gil_scoped_release release;
              n.profile(inputs.data(), outputs.data(), repeats, times.data());
            }
            return times;
          },
          nb::arg("inputs"), nb::arg("outputs"), nb::arg("repeats"), "Seconds per step and repeat, step-major")
      .def(
          "count_allocations",
          [](Net& n, const std::vector<InArray>& in, const std::vector<OutArray>& out, int runs) {
            const auto counter = reinterpret_cast<AllocationCounter>(dlsym(RTLD_DEFAULT, "fastcnn_test_allocations"));
            if (counter == nullptr) throw std::invalid_argument("no allocation counter is preloaded");
            const auto inputs = pointers<const float*>(in, n.input_floats(), "input");
            const auto outputs = pointers<float*>(out, n.output_floats(), "output");
            nb::gil_scoped_release release;
            const unsigned long before = counter();
            for (int i = 0; i < runs; ++i) n.run(inputs.data(), outputs.data());
            return counter() - before;
          },
          nb::arg("inputs"), nb::arg("outputs"), nb::arg("runs"), "Heap allocations in that many runs (tests)");
}
