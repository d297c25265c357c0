#include "base/isa.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <thread>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#endif

namespace fastcnn {

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512_vnni";
    case Isa::kAvx512Amx:
      return "avx512_amx";
    case Isa::kAvx512Emulated:
      return "avx512_emulated";
  }
  return "?";
}

Isa isa_from_name(const std::string& name) {
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAvx512Amx, Isa::kAvx512Emulated}) {
    if (name == isa_name(isa)) return isa;
  }
  throw std::invalid_argument(
      "FASTCNN_ISA=" + name +
      " is not an instruction set fastcnn knows: choose scalar, avx2, avx512, avx512_vnni or avx512_amx");
}

// The environment's cap, or -1 where there is none.
static int isa_cap() {
  const char* cap = std::getenv("FASTCNN_ISA");
  return cap == nullptr || *cap == '\0' ? -1 : static_cast<int>(isa_from_name(cap));
}

#if defined(__x86_64__)
static unsigned long long read_xcr0() {
  unsigned eax = 0, edx = 0;
  __asm__ volatile("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
  return (static_cast<unsigned long long>(edx) << 32) | eax;
}

// Linux gives the tile registers to those who ask, once for a process and its children; signals then take 8 KiB more
// of their stacks. So who will not use them does not ask.
static bool may_use_tiles(unsigned long long xcr0) {
  constexpr unsigned long long kTiles = (1ull << 17) | (1ull << 18);
  if (!FASTCNN_HAVE_AMX || (xcr0 & kTiles) != kTiles) return false;
#if defined(__linux__)
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  static const bool given = [] {
    const int cap = isa_cap();
    if (cap >= 0 && cap < static_cast<int>(Isa::kAvx512Amx)) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return given;
#else
  return false;
#endif
}

Isa detect_isa() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return Isa::kScalar;
  const bool osxsave = c & (1u << 27), avx = c & (1u << 28), fma = c & (1u << 12), f16c = c & (1u << 29);
  if (!osxsave || !avx || !fma || !f16c) return Isa::kScalar;
  const unsigned long long xcr0 = read_xcr0();
  if ((xcr0 & 0x6) != 0x6) return Isa::kScalar;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return Isa::kScalar;
  const auto has = [](unsigned reg, int bit) { return (reg >> bit) & 1u; };
  if (!(has(b, 5) && has(b, 3) && has(b, 8))) return Isa::kScalar;
  const bool f = has(b, 16), dq = has(b, 17), cd = has(b, 28), bw = has(b, 30), vl = has(b, 31);
  if (!(f && dq && cd && bw && vl) || (xcr0 & 0xe6) != 0xe6) return Isa::kAvx2;
  const bool vbmi = has(c, 1), vnni = has(c, 11), bitalg = has(c, 12), vpopcntdq = has(c, 14);
  unsigned a1 = 0, b1 = 0, c1 = 0, d1 = 0;
  const bool bf16 = __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1) && has(a1, 5);
  if (!(vbmi && vnni && bitalg && vpopcntdq && bf16)) return Isa::kAvx512;
  const bool amx = has(d, 22) && has(d, 24) && has(d, 25);
  return amx && may_use_tiles(xcr0) ? Isa::kAvx512Amx : Isa::kAvx512Vnni;
}

bool has_byte_dots(Isa isa) {
  struct Found {
    bool avx = false, avx512 = false;
  };
  static const Found found = [] {
    Found f;
    const char* wish = std::getenv("FASTCNN_BYTE_DOTS");
    if (wish != nullptr && std::strcmp(wish, "0") == 0) return f;
    const Isa best = detect_isa();
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (best < Isa::kAvx2 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return f;
    f.avx512 = best >= Isa::kAvx512 && (c >> 11 & 1u) != 0;
    f.avx = __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1u) != 0;
    return f;
  }();
  if (isa == Isa::kAvx2) return found.avx;
  return isa == Isa::kAvx512 ? found.avx512 : isa == Isa::kAvx512Vnni || isa == Isa::kAvx512Amx;
}
#else
Isa detect_isa() { return Isa::kScalar; }
bool has_byte_dots(Isa) { return false; }
#endif

Isa active_isa() {
  static const Isa chosen = [] {
    const Isa best = detect_isa();
    const int cap = isa_cap();
    if (cap < 0) return best;
    const Isa asked = static_cast<Isa>(cap);
    if (asked == Isa::kAvx512Emulated) {
      if (FASTCNN_EMULATE_AVX512 && best >= Isa::kAvx2) return asked;
      throw std::invalid_argument("FASTCNN_ISA=avx512_emulated needs a test build and a CPU with AVX2");
    }
    return asked < best ? asked : best;
  }();
  return chosen;
}

std::vector<Isa> available_isas() {
  std::vector<Isa> all;
  const Isa best = detect_isa();
  for (Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Vnni, Isa::kAvx512Amx}) {
    if (isa <= best) all.push_back(isa);
  }
  if (FASTCNN_EMULATE_AVX512 && best >= Isa::kAvx2) all.push_back(Isa::kAvx512Emulated);
  return all;
}

int isa_lanes(Isa isa) { return isa == Isa::kScalar || isa == Isa::kAvx2 ? 8 : 16; }

CpuInfo cpu_info() {
  CpuInfo info;
#if defined(__x86_64__)
  unsigned regs[12] = {};
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0, &a, &b, &c, &d)) {
    char vendor[13] = {};
    std::memcpy(vendor, &b, 4);
    std::memcpy(vendor + 4, &d, 4);
    std::memcpy(vendor + 8, &c, 4);
    info.vendor = vendor;
  }
  if (__get_cpuid(0x80000000u, &a, &b, &c, &d) && a >= 0x80000004u) {
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
      __get_cpuid(0x80000002u + leaf, &regs[leaf * 4], &regs[leaf * 4 + 1], &regs[leaf * 4 + 2], &regs[leaf * 4 + 3]);
    }
    char brand[49] = {};
    std::memcpy(brand, regs, 48);
    info.brand = brand;
    while (!info.brand.empty() && info.brand.back() == ' ') info.brand.pop_back();
  }
#endif
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  info.l1d_bytes = sysconf(_SC_LEVEL1_DCACHE_SIZE);
  info.l2_bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  info.l3_bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
#endif
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) info.logical_cores = CPU_COUNT(&set);
#else
  info.logical_cores = static_cast<int>(std::thread::hardware_concurrency());
#endif
  if (info.logical_cores < 1) info.logical_cores = 1;
  return info;
}

}  // namespace fastcnn
