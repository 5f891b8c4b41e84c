// Batches of float32 matrix products by AVX-512, for vaebench/products.py.
//
// A block of the result stays in registers: up to four vectors wide, as many rows high as 32 registers allow. What it
// is made of is first copied to where it lies densely, transposed on the way if need be: panels of the right matrix
// that are as wide as a block, and rows of the left one that come as columns. Both fit the second-level cache.

#include <immintrin.h>
#include <omp.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cstdint>

namespace {

constexpr int LANES = 16, WIDTH = 4 * LANES;
constexpr int64_t DEPTH = 256, ROWS = 240;  // of what is multiplied at a time
constexpr int64_t FEW = 48;                 // rows that do not repay a copy of the right matrix
constexpr int64_t MANY = 2 * WIDTH;         // columns that do not repay one of the left
constexpr int64_t PARALLEL = 1 << 20;       // multiply-adds that do not repay threads

struct Matrix {
  const float* at;
  int64_t down, right;

  Matrix from(int64_t row, int64_t column) const { return {at + row * down + column * right, down, right}; }
};

inline int64_t at_most(int64_t most, int64_t number) { return std::min(most, number); }

inline __mmask16 first(int64_t number) { return number >= LANES ? 0xffff : (1u << number) - 1; }

// Of each pair of rows `Half` apart, the second `Half` columns of the one change places with the first of the other.
template <int Half>
inline void exchange(__m512 (&row)[LANES]) {
  alignas(64) int one[LANES], other[LANES];
  for (int i = 0; i < LANES; ++i) {
    one[i] = i & Half ? LANES + i - Half : i;
    other[i] = i & Half ? LANES + i : i + Half;
  }
  const __m512i to_one = _mm512_load_si512(one), to_other = _mm512_load_si512(other);
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i)
    if (!(i & Half)) {
      const __m512 above = row[i], below = row[i + Half];
      row[i] = _mm512_permutex2var_ps(above, to_one, below);
      row[i + Half] = _mm512_permutex2var_ps(above, to_other, below);
    }
}

// Up to 16 x 16 numbers, written in whole vectors: zeros where rows are missing.
inline void transpose_block(const float* from, int64_t step, int64_t rows, int64_t columns, float* to, int64_t width) {
  __m512 row[LANES];
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i)
    row[i] = i < rows ? _mm512_maskz_loadu_ps(first(columns), from + i * step) : _mm512_setzero_ps();
  exchange<8>(row), exchange<4>(row), exchange<2>(row), exchange<1>(row);
#pragma GCC unroll 16
  for (int i = 0; i < LANES; ++i)
    if (i < columns) _mm512_store_ps(to + i * width, row[i]);
}

// A matrix whose columns are dense becomes one whose rows are.
void transpose(Matrix from, int64_t rows, int64_t columns, float* to, int64_t width) {
  for (int64_t i = 0; i < rows; i += LANES)
    for (int64_t j = 0; j < columns; j += LANES)
      transpose_block(
          from.from(i, j).at, from.right, at_most(LANES, columns - j), at_most(LANES, rows - i), to + i * width + j,
          width);
}

void pack(Matrix from, int64_t depth, int64_t width, float* to) {
  if (from.right != 1 && from.down == 1) return transpose(from, depth, width, to, WIDTH);
  for (int64_t p = 0; p < depth; ++p, to += WIDTH)
    for (int64_t j = 0; j < width; j += LANES) {
      const float* row = from.from(p, j).at;
      const int64_t columns = at_most(LANES, width - j);
      if (from.right == 1)
        _mm512_store_ps(to + j, _mm512_maskz_loadu_ps(first(columns), row));
      else
        for (int64_t i = 0; i < columns; ++i) to[j + i] = row[i * from.right];
    }
}

// R rows of W vectors, the last of which has as many numbers as `last` has bits; `step` is from one row of b to the
// next, `columns` from one of c to the next.
template <int W, int R>
inline void block(
    Matrix a, const float* b, int64_t step, int64_t depth, float* c, int64_t columns, __mmask16 last, bool add) {
  __m512 sum[R][W];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) {
      const __mmask16 mask = w + 1 < W ? 0xffff : last;
      sum[r][w] = add ? _mm512_maskz_loadu_ps(mask, c + r * columns + w * LANES) : _mm512_setzero_ps();
    }
  for (int64_t p = 0; p < depth; ++p) {
    __m512 row[W];
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w) row[w] = _mm512_maskz_loadu_ps(w + 1 < W ? 0xffff : last, b + p * step + w * LANES);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const __m512 factor = _mm512_set1_ps(*a.from(r, p).at);
#pragma GCC unroll 4
      for (int w = 0; w < W; ++w) sum[r][w] = _mm512_fmadd_ps(factor, row[w], sum[r][w]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int w = 0; w < W; ++w)
      _mm512_mask_storeu_ps(c + r * columns + w * LANES, w + 1 < W ? 0xffff : last, sum[r][w]);
}

// Blocks of R rows, and of fewer where fewer are left.
template <int W, int R, int... Fewer>
void panel(
    Matrix a, const float* b, int64_t step, int64_t rows, int64_t depth, float* c, int64_t columns, __mmask16 last,
    bool add) {
  int64_t i = 0;
  for (; i + R <= rows; i += R) block<W, R>(a.from(i, 0), b, step, depth, c + i * columns, columns, last, add);
  if constexpr (sizeof...(Fewer) > 0)
    panel<W, Fewer...>(a.from(i, 0), b, step, rows - i, depth, c + i * columns, columns, last, add);
}

// Up to 240 rows of a product.
void multiply(Matrix a, Matrix b, float* c, int64_t rows, int64_t inner, int64_t columns) {
  alignas(64) float dense_a[ROWS * DEPTH], dense_b[DEPTH * WIDTH];
  const bool copy_a = a.down == 1 && columns > MANY, copy_b = b.right != 1 || rows > FEW;
  for (int64_t p = 0; p < inner; p += DEPTH) {
    const int64_t depth = at_most(DEPTH, inner - p), step = copy_b ? WIDTH : b.down;
    if (copy_a) transpose(a.from(0, p), rows, depth, dense_a, DEPTH);
    const Matrix left = copy_a ? Matrix{dense_a, DEPTH, 1} : a.from(0, p);
    for (int64_t j = 0; j < columns; j += WIDTH) {
      const int64_t width = at_most(WIDTH, columns - j), vectors = (width + LANES - 1) / LANES;
      const __mmask16 last = first(width - (vectors - 1) * LANES);
      if (copy_b) pack(b.from(p, j), depth, width, dense_b);
      const float* right = copy_b ? dense_b : b.from(p, j).at;
      switch (vectors) {
        case 1: panel<1, 14, 8, 4, 2, 1>(left, right, step, rows, depth, c + j, columns, last, p > 0); break;
        case 2: panel<2, 12, 8, 4, 2, 1>(left, right, step, rows, depth, c + j, columns, last, p > 0); break;
        case 3: panel<3, 8, 4, 2, 1>(left, right, step, rows, depth, c + j, columns, last, p > 0); break;
        default: panel<4, 6, 4, 2, 1>(left, right, step, rows, depth, c + j, columns, last, p > 0);
      }
    }
  }
}

}  // namespace

// left (..., m, k) @ right (..., k, n), of one leading axis at most; for compiled code.
extern "C" AOTITorchError aoti_torch_cpu_product(
    AtenTensorHandle left, AtenTensorHandle right, AtenTensorHandle* result) {
  int64_t axes, *shape, *other_shape, *strides, *other_strides;
  for (const AOTITorchError error :
       {aoti_torch_get_dim(left, &axes), aoti_torch_get_sizes(left, &shape), aoti_torch_get_strides(left, &strides),
        aoti_torch_get_sizes(right, &other_shape), aoti_torch_get_strides(right, &other_strides)})
    if (error) return error;
  const int64_t i = axes - 2, j = axes - 1, number = i ? shape[0] : 1;
  const int64_t rows = shape[i], inner = shape[j], columns = other_shape[j];
  const int64_t sizes[] = {number, rows, columns}, steps[] = {rows * columns, columns, 1};
  void *a, *b, *c;
  for (const AOTITorchError error :
       {aoti_torch_empty_strided(
            axes, sizes + 1 - i, steps + 1 - i, aoti_torch_dtype_float32(), aoti_torch_device_type_cpu(), 0, result),
        aoti_torch_get_data_ptr(left, &a), aoti_torch_get_data_ptr(right, &b), aoti_torch_get_data_ptr(*result, &c)})
    if (error) return error;
  const int64_t step = i ? strides[0] : 0, other_step = i ? other_strides[0] : 0;
  const int64_t share = number * rows / omp_get_max_threads() + 1, part = at_most(ROWS, std::max(FEW, share));
#pragma omp parallel for collapse(2) if (number * rows * inner * columns > PARALLEL)
  for (int64_t s = 0; s < number; ++s)
    for (int64_t r = 0; r < rows; r += part) {
      const Matrix one{static_cast<float*>(a) + s * step, strides[i], strides[j]};
      const Matrix other{static_cast<float*>(b) + s * other_step, other_strides[i], other_strides[j]};
      float* to = static_cast<float*>(c) + (s * rows + r) * columns;
      multiply(one.from(r, 0), other, to, at_most(part, rows - r), inner, columns);
    }
  return AOTI_TORCH_SUCCESS;
}

using torch::stable::Tensor;

Tensor product(Tensor left, Tensor right) {
  AtenTensorHandle result;
  TORCH_ERROR_CODE_CHECK(aoti_torch_cpu_product(left.get(), right.get(), &result));
  return Tensor(result);
}

STABLE_TORCH_LIBRARY_IMPL(vaebench, CPU, library) { library.impl("product", TORCH_BOX(&product)); }
