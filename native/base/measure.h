// Peak multiply-add rate and read bandwidth of this host.
#pragma once

#include "base/isa.h"

namespace fastcnn {

// Giga multiply-adds per second of float32, all threads together; about a quarter of a second.
double measure_fma_gmacs(Isa isa, int threads);

// The same of products in bf16 summed in float32, by the instruction for it where there is one.
double measure_bf16_gmacs(Isa isa, int threads);

// 1e9 multiply-adds of bf16 per second on the tile registers of AMX; 0 where there are none.
double measure_amx_gmacs(Isa isa, int threads);

// The same of products of +-1 in bits: xor, count, add.
double measure_bit_gmacs(Isa isa, int threads);

// GB/s read by all threads together from one buffer of that size, split between them.
double measure_read_gbps(Isa isa, int threads, int megabytes);

}  // namespace fastcnn
