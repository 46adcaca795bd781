// The arrays of a `Tree`, one after the other in memory that is aligned for float64.
#pragma once

#include "assignment.h"

namespace prior_fast {

PF_INLINE constexpr size_t tree_bytes(size_t rows, size_t columns) {
  return sizeof(double) * (2 * rows + columns) + sizeof(int) * 2 * (rows + columns);
}

PF_INLINE Tree tree_in(double* memory, size_t rows, size_t columns) {
  double *u = memory, *v = u + rows, *closed_length = v + columns;
  int* column_of = reinterpret_cast<int*>(closed_length + rows);
  int *row_of = column_of + rows, *path = row_of + columns, *closed = path + columns;
  return {u, v, column_of, row_of, path, closed, closed_length};
}

}  // namespace prior_fast
