# One function per kernel family: fastcnn_kernel_family(NAME direct ISAS scalar avx2 avx512 avx512_vnni)
# compiles native/kernels/NAME/NAME.cpp plus one translation unit per ISA, NAME/<isa>.cpp, each with exactly
# the flags of its ISA. Nothing else in the build gets ISA flags.

set(FASTCNN_X86_FLAGS_scalar "")
set(FASTCNN_X86_FLAGS_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
set(FASTCNN_X86_FLAGS_avx512 ${FASTCNN_X86_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512cd)
set(FASTCNN_X86_FLAGS_avx512_vnni ${FASTCNN_X86_FLAGS_avx512} -mavx512vnni -mavx512bf16 -mavx512vbmi
    -mavx512vpopcntdq -mavx512bitalg)
set(FASTCNN_X86_FLAGS_avx512_amx ${FASTCNN_X86_FLAGS_avx512_vnni} -mamx-tile -mamx-bf16 -mamx-int8)
# GCC 11 and binutils 2.35, or Clang 12, and newer.
include(CheckCXXSourceCompiles)
set(CMAKE_REQUIRED_FLAGS "-mamx-tile -mamx-bf16 -mamx-int8")
check_cxx_source_compiles(
  "#include <immintrin.h>\nint main() { _tile_zero(0); _tile_dpbf16ps(0, 1, 2); _tile_dpbusd(0, 1, 2); _tile_release(); }" FASTCNN_HAVE_AMX)
# Sums of four products of bytes, which many CPUs have with less than is asked of avx512_vnni (base/isa.h).
set(FASTCNN_X86_FLAGS_avx512_dots ${FASTCNN_X86_FLAGS_avx512} -mavx512vnni)
set(FASTCNN_X86_FLAGS_avx2_dots ${FASTCNN_X86_FLAGS_avx2} -mavxvnni)
set(CMAKE_REQUIRED_FLAGS "-mavx2 -mavxvnni")
check_cxx_source_compiles(
  "#include <immintrin.h>\nint main() { __m256i x = _mm256_setzero_si256(); x = _mm256_dpbusd_avx_epi32(x, x, x); }"
  FASTCNN_HAVE_AVXVNNI)
unset(CMAKE_REQUIRED_FLAGS)
# Lowered to twice as many AVX2 registers; optimising that takes minutes and is of no use to the tests it is for.
set(FASTCNN_X86_FLAGS_avx512_emulated ${FASTCNN_X86_FLAGS_avx2} -O1)

function(fastcnn_kernel_family)
  cmake_parse_arguments(FAMILY "" "NAME" "ISAS" ${ARGN})
  set(sources "${CMAKE_CURRENT_SOURCE_DIR}/${FAMILY_NAME}/${FAMILY_NAME}.cpp")
  if(FASTCNN_EMULATE_AVX512 AND "${FAMILY_ISAS}" MATCHES "avx512")
    list(APPEND FAMILY_ISAS avx512_emulated)
  endif()
  foreach(isa IN LISTS FAMILY_ISAS)
    if(NOT isa STREQUAL "scalar" AND NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
      continue()
    endif()
    if((isa STREQUAL "avx512_amx" AND NOT FASTCNN_HAVE_AMX) OR (isa STREQUAL "avx2_dots" AND NOT FASTCNN_HAVE_AVXVNNI))
      continue()
    endif()
    set(source "${CMAKE_CURRENT_SOURCE_DIR}/${FAMILY_NAME}/${isa}.cpp")
    set_source_files_properties("${source}" PROPERTIES COMPILE_OPTIONS "${FASTCNN_X86_FLAGS_${isa}}")
    list(APPEND sources "${source}")
  endforeach()
  add_library(fastcnn_${FAMILY_NAME} OBJECT ${sources})
  target_link_libraries(fastcnn_${FAMILY_NAME} PRIVATE fastcnn_options)
  if(FASTCNN_EMULATE_AVX512)
    target_compile_definitions(fastcnn_${FAMILY_NAME} PRIVATE FASTCNN_EMULATE_AVX512=1)
  else()
    target_compile_definitions(fastcnn_${FAMILY_NAME} PRIVATE FASTCNN_EMULATE_AVX512=0)
  endif()
endfunction()
