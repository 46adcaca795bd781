// prior_fast::rotate_images on the CPU: each thread rotates, mirrors and normalizes some of the images.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace prior_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Where the pixels of an output row are read: column x at (x0 + x * step_x, y0 + x * step_y).
struct Line {
  float x0, y0, step_x, step_y;
};

struct Image {
  const uint8_t* pixels;
  int height, width;
};

struct Scale {
  float factor, offset;
};

inline float pixel_or_zero(const Image& image, int y, int x) {
  const bool inside = y >= 0 && y < image.height && x >= 0 && x < image.width;
  return inside ? static_cast<float>(image.pixels[y * image.width + x]) : 0.0f;
}

inline float between(float a, float b, float share) { return a + (b - a) * share; }

// Whether column x and its three neighbors lie inside the image; true for one range of columns, a line being straight.
inline bool all_inside(const Image& image, const Line& line, int x) {
  const float ix = line.x0 + x * line.step_x, iy = line.y0 + x * line.step_y;
  return ix >= 0.0f && ix < image.width - 1 && iy >= 0.0f && iy < image.height - 1;
}

void read_line(const Image& image, const Line& line, int begin, int end, Scale scale, float* out) {
  for (int x = begin; x < end; ++x) {
    const float ix = line.x0 + x * line.step_x, iy = line.y0 + x * line.step_y;
    const float left = std::floor(ix), top = std::floor(iy);
    const int j = static_cast<int>(left), i = static_cast<int>(top);
    const float upper = between(pixel_or_zero(image, i, j), pixel_or_zero(image, i, j + 1), ix - left);
    const float lower = between(pixel_or_zero(image, i + 1, j), pixel_or_zero(image, i + 1, j + 1), ix - left);
    out[x] = between(upper, lower, iy - top) * scale.factor + scale.offset;
  }
}

void read_inner_line(const Image& image, const Line& line, int begin, int end, Scale scale, float* out) {
  for (int x = begin; x < end; ++x) {
    const float ix = line.x0 + x * line.step_x, iy = line.y0 + x * line.step_y;
    // Positions are not negative here, so that truncation is floor.
    const int j = static_cast<int>(ix), i = static_cast<int>(iy);
    const uint8_t* corner = image.pixels + i * image.width + j;
    const float share = ix - j;
    const float upper = between(corner[0], corner[1], share);
    const float lower = between(corner[image.width], corner[image.width + 1], share);
    out[x] = between(upper, lower, iy - i) * scale.factor + scale.offset;
  }
}

void read_nearest_line(const Image& image, const Line& line, Scale scale, float* out) {
  for (int x = 0; x < image.width; ++x) {
    const int j = static_cast<int>(std::floor(line.x0 + x * line.step_x + 0.5f));
    const int i = static_cast<int>(std::floor(line.y0 + x * line.step_y + 0.5f));
    out[x] = pixel_or_zero(image, i, j) * scale.factor + scale.offset;
  }
}

// A line of an image that is not rotated: bilinear and nearest reading both give the pixel itself.
void read_level_line(const uint8_t* pixels, int width, bool flip, Scale scale, float* out) {
  if (flip) {
    for (int x = 0; x < width; ++x) out[x] = pixels[width - 1 - x] * scale.factor + scale.offset;
  } else {
    for (int x = 0; x < width; ++x) out[x] = pixels[x] * scale.factor + scale.offset;
  }
}

void rotate(const Image& image, float degrees, bool flip, bool nearest, Scale scale, float* out) {
  const float radians = degrees * static_cast<float>(M_PI / 180.0);
  const float cosine = std::cos(radians), sine = std::sin(radians), sign = flip ? -1.0f : 1.0f;
  const float center_x = (image.width - 1) / 2.0f, center_y = (image.height - 1) / 2.0f;
  for (int y = 0; y < image.height; ++y, out += image.width) {
    if (degrees == 0.0f) {
      read_level_line(image.pixels + y * image.width, image.width, flip, scale, out);
      continue;
    }
    const float dy = y - center_y;
    const Line line{center_x + sine * dy - cosine * sign * center_x, center_y + cosine * dy + sine * sign * center_x,
                    cosine * sign, -sine * sign};
    if (nearest) {
      read_nearest_line(image, line, scale, out);
      continue;
    }
    // The inner columns are one range, so they are found from both ends and need no tests of their neighbors.
    int begin = 0, end = image.width;
    while (begin < end && !all_inside(image, line, begin)) ++begin;
    while (end > begin && !all_inside(image, line, end - 1)) --end;
    read_line(image, line, 0, begin, scale, out);
    read_inner_line(image, line, begin, end, scale, out);
    read_line(image, line, end, image.width, scale, out);
  }
}

// images [N, H, W] uint8, rows [B] int64, angles [B] float32 in degrees, flips [B] bool, all contiguous -> [B, 1, H, W]
// float32: the pixels of the rotated images over 255, less `mean`, over `std`; bilinear, or the nearest pixel.
Tensor rotate_images(const Tensor& images, const Tensor& rows, const Tensor& angles, const Tensor& flips, double mean,
                     double std, bool nearest) {
  const int64_t batch = rows.size(0), height = images.size(1), width = images.size(2);
  Tensor out = torch::stable::new_empty(images, {batch, 1, height, width}, ScalarType::Float);
  const Scale scale{static_cast<float>(1.0 / (255.0 * std)), static_cast<float>(-mean / std)};
  torch::stable::parallel_for(0, batch, 1, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const int64_t row = static_cast<const int64_t*>(rows.const_data_ptr())[b];
      const Image image{static_cast<const uint8_t*>(images.const_data_ptr()) + row * height * width,
                        static_cast<int>(height), static_cast<int>(width)};
      rotate(image, static_cast<const float*>(angles.const_data_ptr())[b],
             static_cast<const bool*>(flips.const_data_ptr())[b], nearest, scale,
             static_cast<float*>(out.mutable_data_ptr()) + b * height * width);
    }
  });
  return out;
}

}  // namespace
}  // namespace prior_fast

STABLE_TORCH_LIBRARY_IMPL(prior_fast, CPU, library) {
  library.impl("rotate_images", TORCH_BOX(&prior_fast::rotate_images));
}
