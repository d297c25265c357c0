// The passes of training to Python. Arrays are checked here: native/training trusts its pointers.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <optional>

#include "bindings/bindings.h"
#include "training/tile_passes.h"

namespace nb = nanobind;
using namespace fastcnn;

namespace {

using In = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using Pair = std::pair<int, int>;

template <class Array>
auto* checked(const Array& array, size_t least, const char* name) {
  if (array.size() < least) {
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) + " numbers, " +
                                std::to_string(least) + " are needed");
  }
  return array.data();
}
template <class Array>
auto* checked(const std::optional<Array>& array, size_t least, const char* name) {
  return array ? checked(*array, least, name) : nullptr;
}

size_t input_size(const PassShape& s) {
  return static_cast<size_t>(s.images) * s.groups * s.channels * s.height * s.width;
}
size_t output_size(const PassShape& s) {
  return static_cast<size_t>(s.images) * s.groups * s.filters * s.out_height * s.out_width;
}
size_t weight_size(const PassShape& s) { return static_cast<size_t>(s.groups) * s.filters * s.channels * s.kh * s.kw; }

}  // namespace

void bind_training(nb::module_& m) {
  nb::class_<TilePasses>(m, "TilePasses")
      .def(
          "__init__",
          [](TilePasses* self, const std::string& isa, const std::string& op, int size, int images, int groups,
             Pair channels, Pair map, Pair out_map, Pair kernel, Pair padding, int threads) {
            PassShape s;
            s.images = images, s.groups = groups;
            s.channels = channels.first, s.filters = channels.second;
            s.height = map.first, s.width = map.second;
            s.out_height = out_map.first, s.out_width = out_map.second;
            s.kh = kernel.first, s.kw = kernel.second;
            s.top = padding.first, s.left = padding.second;
            if (s.kh < 1 || s.kw < 1) throw std::invalid_argument("kernel extents must be at least 1");
            if (s.top < 0 || s.left < 0) throw std::invalid_argument("padding must not be negative");
            new (self) TilePasses(isa_from_name(isa), op, size, s, threads);
          },
          nb::arg("isa"), nb::arg("op"), nb::arg("size"), nb::arg("images"), nb::arg("groups"), nb::arg("channels"),
          nb::arg("map"), nb::arg("out_map"), nb::arg("kernel"), nb::arg("padding"), nb::arg("threads"))
      .def_prop_ro("input_floats", &TilePasses::input_floats)
      .def_prop_ro("gradient_floats", &TilePasses::gradient_floats)
      .def_prop_ro("filter_floats", &TilePasses::filter_floats)
      .def_prop_ro("forward_scratch", &TilePasses::forward_scratch)
      .def("backward_scratch", &TilePasses::backward_scratch, nb::arg("images"), nb::arg("kept_input"),
           nb::arg("need_input"), nb::arg("need_weight"))
      .def(
          "filters",
          [](const TilePasses& p, const In& w, const Out& u) {
            const float* from = checked(w, weight_size(p.shape()), "w");
            float* to = checked(u, p.filter_floats(), "u");
            nb::gil_scoped_release released;
            p.filters(from, to);
          },
          nb::arg("w"), nb::arg("u").noconvert())
      .def(
          "forward",
          [](const TilePasses& p, const In& x, const In& u, const Out& y, const std::optional<Out>& spectra,
             const Out& scratch) {
            const PassShape& s = p.shape();
            const float *in = checked(x, input_size(s), "x"), *filters = checked(u, p.filter_floats(), "u");
            float* out = checked(y, output_size(s), "y");
            float* keep = checked(spectra, p.input_floats() * s.images, "spectra");
            float* own = checked(scratch, p.forward_scratch(), "scratch");
            nb::gil_scoped_release released;
            p.forward(in, filters, out, keep, own);
          },
          nb::arg("x"), nb::arg("u"), nb::arg("y").noconvert(), nb::arg("spectra").none().noconvert(),
          nb::arg("scratch").noconvert())
      .def(
          "backward",
          [](const TilePasses& p, const In& dy, const std::optional<In>& x, const std::optional<In>& spectra,
             const std::optional<In>& u, const std::optional<Out>& dx, const std::optional<Out>& dw, int at_once,
             const Out& scratch) {
            const PassShape& s = p.shape();
            const float *grad = checked(dy, output_size(s), "dy"), *in = checked(x, input_size(s), "x");
            const float* kept = checked(spectra, p.input_floats() * s.images, "spectra");
            const float* filters = checked(u, p.filter_floats(), "u");
            float* of_x = checked(dx, input_size(s), "dx");
            float* of_w = checked(dw, weight_size(s), "dw");
            if (of_x != nullptr && filters == nullptr) throw std::invalid_argument("dx needs u");
            if (of_w != nullptr && in == nullptr && kept == nullptr)
              throw std::invalid_argument("dw needs x or spectra");
            if (at_once < 1) throw std::invalid_argument("at_once must be at least 1, got " + std::to_string(at_once));
            float* own = checked(
                scratch, p.backward_scratch(at_once, kept != nullptr, of_x != nullptr, of_w != nullptr), "scratch");
            nb::gil_scoped_release released;
            p.backward(grad, in, kept, filters, of_x, of_w, at_once, own);
          },
          nb::arg("dy"), nb::arg("x").none(), nb::arg("spectra").none(), nb::arg("u").none(),
          nb::arg("dx").none().noconvert(), nb::arg("dw").none().noconvert(), nb::arg("at_once"),
          nb::arg("scratch").noconvert());
}
