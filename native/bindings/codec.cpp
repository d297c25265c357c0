// fastcnn._native.codec: the entropy coders as functions from numpy arrays to numpy arrays. The GIL is released in
// every loop over symbols. Damaged streams raise ValueError (codec::CodecError).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>

#include "codec/bits.h"
#include "codec/distinct.h"
#include "codec/huffman.h"
#include "codec/planes.h"
#include "codec/rans.h"
#include "codec/sparse.h"

namespace nb = nanobind;
using namespace nb::literals;
namespace codec = fastcnn::codec;

namespace {

template <typename T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Out = nb::ndarray<nb::numpy, T, nb::ndim<1>>;

template <typename T>
Out<T> own(std::vector<T>&& values) {
  auto* held = new std::vector<T>(std::move(values));
  nb::capsule owner(held, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return Out<T>(held->data(), {held->size()}, owner);
}

// Run `fill(T*)` without the GIL on a fresh, uninitialised array of `count` elements.
template <typename T, typename Fill>
nb::object make(size_t count, Fill fill) {
  std::unique_ptr<T[]> data(new T[count]);
  {
    nb::gil_scoped_release release;
    fill(data.get());
  }
  T* raw = data.release();
  nb::capsule owner(raw, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return nb::cast(Out<T>(raw, {count}, owner));
}

template <typename Fill>
nb::object make_symbols(size_t count, uint32_t alphabet, Fill fill) {
  if (count > SIZE_MAX / 4) throw codec::CodecError("symbol count is too large");
  if (alphabet <= 256) return make<uint8_t>(count, fill);
  return make<uint16_t>(count, fill);
}

template <typename Encode>
Out<uint8_t> encoded(Encode encode) {
  codec::Bytes bytes;
  {
    nb::gil_scoped_release release;
    bytes = encode();
  }
  return own(std::move(bytes));
}

std::vector<uint64_t> as_counts(const In<uint64_t>& counts) {
  return std::vector<uint64_t>(counts.data(), counts.data() + counts.size());
}

template <typename Symbol>
void bind_symbols(nb::module_& m) {
  m.def(
      "pack",
      [](In<Symbol> symbols, unsigned bits) {
        return encoded([&] { return codec::pack(symbols.data(), symbols.size(), bits); });
      },
      "symbols"_a, "bits"_a);
  m.def(
      "huffman_encode",
      [](In<Symbol> symbols, uint32_t alphabet) {
        return encoded([&] { return codec::huffman_encode(symbols.data(), symbols.size(), alphabet); });
      },
      "symbols"_a, "alphabet"_a);
  m.def(
      "rans_encode",
      [](In<Symbol> symbols, uint32_t alphabet) {
        return encoded([&] { return codec::rans_encode(symbols.data(), symbols.size(), alphabet); });
      },
      "symbols"_a, "alphabet"_a);
  m.def(
      "histogram",
      [](In<Symbol> symbols, uint32_t alphabet) {
        std::vector<uint64_t> counts;
        {
          nb::gil_scoped_release release;
          counts = codec::histogram(symbols.data(), symbols.size(), alphabet);
        }
        return own(std::move(counts));
      },
      "symbols"_a, "alphabet"_a);
  m.def(
      "sparse_split",
      [](In<Symbol> symbols, uint32_t fill, unsigned gap_bits) {
        codec::Pairs pairs;
        {
          nb::gil_scoped_release release;
          pairs = codec::sparse_split(symbols.data(), symbols.size(), fill, gap_bits);
        }
        return std::pair(own(std::move(pairs.gaps)), own(std::move(pairs.values)));
      },
      "symbols"_a, "fill"_a, "gap_bits"_a);
}

template <typename Pattern>
void bind_patterns(nb::module_& m) {
  m.def(
      "distinct",
      [](In<Pattern> data, size_t limit) -> std::optional<Out<Pattern>> {
        std::vector<Pattern> found;
        {
          nb::gil_scoped_release release;
          found = codec::distinct(data.data(), data.size(), limit);
        }
        if (found.empty() && data.size() > 0) return std::nullopt;
        return own(std::move(found));
      },
      "data"_a, "limit"_a);
  m.def(
      "index_of",
      [](In<Pattern> data, In<Pattern> patterns) {
        std::vector<uint16_t> out;
        {
          nb::gil_scoped_release release;
          out = codec::index_of(data.data(), data.size(), patterns.data(), patterns.size());
        }
        return own(std::move(out));
      },
      "data"_a, "patterns"_a);
}

// The planes as one array of unsigned words; their number is the word's size in bytes.
nb::object join_planes(const std::vector<In<uint8_t>>& planes, bool rotate) {
  std::vector<const uint8_t*> pointers;
  for (const In<uint8_t>& plane : planes) {
    if (plane.size() != planes[0].size()) throw std::invalid_argument("planes differ in length");
    pointers.push_back(plane.data());
  }
  const auto join = [&](auto* out) { codec::join_planes(pointers.data(), planes[0].size(), rotate, out); };
  switch (planes.size()) {
    case 1:
      return make<uint8_t>(planes[0].size(), join);
    case 2:
      return make<uint16_t>(planes[0].size(), join);
    case 4:
      return make<uint32_t>(planes[0].size(), join);
    case 8:
      return make<uint64_t>(planes[0].size(), join);
    default:
      throw std::invalid_argument("1, 2, 4 or 8 planes make a word");
  }
}

}  // namespace

void bind_codec(nb::module_& parent) {
  nb::module_ m = parent.def_submodule("codec", "Entropy coders of the .fcnn file");
  bind_symbols<uint8_t>(m);
  bind_symbols<uint16_t>(m);
  bind_patterns<uint8_t>(m);
  bind_patterns<uint16_t>(m);
  bind_patterns<uint32_t>(m);
  bind_patterns<uint64_t>(m);
  m.attr("MAX_ALPHABET") = codec::kMaxAlphabet;
  m.attr("MAX_GAP_BITS") = codec::kMaxGapBits;
  m.def("huffman_size", [](In<uint64_t> counts) { return codec::huffman_size(as_counts(counts)); }, "counts"_a);
  m.def("rans_size", [](In<uint64_t> counts) { return codec::rans_plan(as_counts(counts)).bytes; }, "counts"_a);
  m.def(
      "unpack",
      [](In<uint8_t> data, size_t count, unsigned bits, uint32_t alphabet) {
        return make_symbols(count, alphabet,
                            [&](auto* out) { codec::unpack(data.data(), data.size(), out, count, bits, alphabet); });
      },
      "data"_a, "count"_a, "bits"_a, "alphabet"_a);
  m.def(
      "huffman_decode",
      [](In<uint8_t> data, size_t count, uint32_t alphabet) {
        return make_symbols(count, alphabet,
                            [&](auto* out) { codec::huffman_decode(data.data(), data.size(), out, count, alphabet); });
      },
      "data"_a, "count"_a, "alphabet"_a);
  m.def(
      "rans_decode",
      [](In<uint8_t> data, size_t count, uint32_t alphabet) {
        return make_symbols(count, alphabet,
                            [&](auto* out) { codec::rans_decode(data.data(), data.size(), out, count, alphabet); });
      },
      "data"_a, "count"_a, "alphabet"_a);
  m.def(
      "sparse_join",
      [](In<uint16_t> gaps, In<uint16_t> values, uint32_t fill, size_t count, uint32_t alphabet) {
        if (gaps.size() != values.size()) throw codec::CodecError("gaps and values differ in number");
        return make_symbols(count, alphabet, [&](auto* out) {
          codec::sparse_join(gaps.data(), values.data(), gaps.size(), fill, out, count);
        });
      },
      "gaps"_a, "values"_a, "fill"_a, "count"_a, "alphabet"_a);
  m.def("join_planes", &join_planes, "planes"_a, "rotate"_a);
}
