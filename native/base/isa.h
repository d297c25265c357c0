// Instruction sets fastcnn has kernels for, what each implies, and which one this process uses.
#pragma once

#include <string>
#include <vector>

namespace fastcnn {

// In rising order: a CPU that has one has all before it. kAvx512Emulated runs the 16-lane kernels on AVX2 registers,
// so that their logic is tested on machines without AVX-512; it is never chosen unless asked for by name.
enum class Isa : int { kScalar = 0, kAvx2 = 1, kAvx512 = 2, kAvx512Vnni = 3, kAvx512Amx = 4, kAvx512Emulated = 5 };

// "scalar", "avx2", "avx512", "avx512_vnni", "avx512_amx", "avx512_emulated".
const char* isa_name(Isa isa);

// Throws std::invalid_argument naming the allowed words.
Isa isa_from_name(const std::string& name);

// Best level this CPU and operating system support, by CPUID and XGETBV (AMX: also by asking the system for its tiles):
//   avx2: AVX2, FMA, F16C, BMI1, BMI2.  avx512: F, BW, VL, DQ, CD.  avx512_vnni: + VNNI, BF16, VBMI, VPOPCNTDQ, BITALG.
//   avx512_amx: + AMX with BF16 and INT8.
Isa detect_isa();

// detect_isa() capped by the environment variable FASTCNN_ISA (read once).
Isa active_isa();

// Whether the CPU has sums of four products of bytes in the registers of an instruction set, by AVX-VNNI or
// AVX512-VNNI: there are CPUs that are avx2 or avx512 here for want of something else. FASTCNN_BYTE_DOTS=0 does
// without, in the levels below avx512_vnni.
bool has_byte_dots(Isa isa);

// Levels this build and CPU can run, the emulated one last if it was built in.
std::vector<Isa> available_isas();

// Floats in a vector register, which is also the channel block of the activation layout.
int isa_lanes(Isa isa);

struct CpuInfo {
  std::string vendor;
  std::string brand;
  long l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;
  int logical_cores = 1;
};
CpuInfo cpu_info();

}  // namespace fastcnn

// Body of a family's lookup: returns <prefix><isa>(), the scalar kernels where the build has no others.
#if defined(__x86_64__) && FASTCNN_EMULATE_AVX512
#define FASTCNN_ISA_LOOKUP_EMULATED(isa, prefix) \
  if (isa == ::fastcnn::Isa::kAvx512Emulated) return prefix##avx512_emulated();
#else
#define FASTCNN_ISA_LOOKUP_EMULATED(isa, prefix)
#endif
#if defined(__x86_64__)
#define FASTCNN_ISA_LOOKUP(isa, prefix)                                 \
  FASTCNN_ISA_LOOKUP_EMULATED(isa, prefix)                              \
  if (isa == ::fastcnn::Isa::kAvx512Amx) return prefix##avx512_vnni();  \
  if (isa == ::fastcnn::Isa::kAvx512Vnni) return prefix##avx512_vnni(); \
  if (isa == ::fastcnn::Isa::kAvx512) return prefix##avx512();          \
  if (isa == ::fastcnn::Isa::kAvx2) return prefix##avx2();              \
  return prefix##scalar();
#else
#define FASTCNN_ISA_LOOKUP(isa, prefix) \
  (void)(isa);                          \
  return prefix##scalar();
#endif

// Body of the lookup of a family for the tile registers of AMX: &<prefix><isa>(), or null where there are none.
#if defined(__x86_64__) && FASTCNN_HAVE_AMX
#define FASTCNN_AMX_LOOKUP_NATIVE(isa, prefix) \
  if (isa == ::fastcnn::Isa::kAvx512Amx) return &prefix##avx512_amx();
#else
#define FASTCNN_AMX_LOOKUP_NATIVE(isa, prefix)
#endif
#if defined(__x86_64__) && FASTCNN_EMULATE_AVX512
#define FASTCNN_AMX_LOOKUP_EMULATED(isa, prefix) \
  if (isa == ::fastcnn::Isa::kAvx512Emulated) return &prefix##avx512_emulated();
#else
#define FASTCNN_AMX_LOOKUP_EMULATED(isa, prefix)
#endif
#define FASTCNN_AMX_LOOKUP(isa, prefix)    \
  FASTCNN_AMX_LOOKUP_NATIVE(isa, prefix)   \
  FASTCNN_AMX_LOOKUP_EMULATED(isa, prefix) \
  (void)(isa);                             \
  return nullptr;
