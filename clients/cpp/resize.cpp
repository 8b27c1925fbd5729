#include "resize.hpp"

#include <algorithm>
#include <cmath>

namespace {

struct Part {
    int pixel;
    float weight;
};

std::uint8_t rounded(float value) {
    // Halves go to the even neighbour, which is the default of the processor.
    return static_cast<std::uint8_t>(std::clamp(std::nearbyint(value), 0.0f, 255.0f));
}

// For each of `size` areas along `length` pixels: which pixels it covers, and their weights.
std::vector<std::vector<Part>> overlaps(int length, int size) {
    const double scale = static_cast<double>(length) / size;
    std::vector<std::vector<Part>> areas(size);
    for (int index = 0; index < size; ++index) {
        const double start = index * scale, end = start + scale;
        const double cell = std::min(scale, length - start);
        const int last = std::min(static_cast<int>(std::floor(end)), length - 1);
        const int first = std::min(static_cast<int>(std::ceil(start)), last);
        auto& parts = areas[index];
        if (first - start > 1e-3) parts.push_back({first - 1, static_cast<float>((first - start) / cell)});
        for (int pixel = first; pixel < last; ++pixel) parts.push_back({pixel, static_cast<float>(1 / cell)});
        if (end - last > 1e-3)
            parts.push_back({last, static_cast<float>(std::min({end - last, 1.0, cell}) / cell)});
    }
    return areas;
}

// Areas that are not whole pixels: sums in float32, first along the rows, then down the columns.
void average(const Picture& source, Picture& target) {
    const auto columns = overlaps(source.width, target.width);
    const auto rows = overlaps(source.height, target.height);
    std::vector<float> row(target.width * 3), sum(target.width * 3);
    for (int y = 0; y < target.height; ++y) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (const Part& down : rows[y]) {
            const std::uint8_t* line = &source.data[std::size_t(down.pixel) * source.width * 3];
            std::fill(row.begin(), row.end(), 0.0f);
            for (int x = 0; x < target.width; ++x)
                for (const Part& across : columns[x])
                    for (int c = 0; c < 3; ++c) row[x * 3 + c] += line[across.pixel * 3 + c] * across.weight;
            for (std::size_t at = 0; at < sum.size(); ++at) sum[at] += row[at] * down.weight;
        }
        std::transform(sum.begin(), sum.end(), &target.data[std::size_t(y) * target.width * 3], rounded);
    }
}

// Areas of whole pixels: sums of integers.
void average_whole(const Picture& source, Picture& target) {
    const int down = source.height / target.height, across = source.width / target.width;
    const float share = static_cast<float>(1.0 / (down * across));
    for (int y = 0; y < target.height; ++y)
        for (int x = 0; x < target.width; ++x)
            for (int c = 0; c < 3; ++c) {
                int sum = 0;
                for (int dy = 0; dy < down; ++dy)
                    for (int dx = 0; dx < across; ++dx)
                        sum += source.data[((std::size_t(y) * down + dy) * source.width + x * across + dx) * 3 + c];
                target.data[(std::size_t(y) * target.width + x) * 3 + c] =
                    down == 2 && across == 2 ? (sum + 2) >> 2 : rounded(sum * share);
            }
}

struct Neighbours {
    int before, after, weight_before, weight_after;
};

// For each of `size` points along `length` pixels: the pixels on both sides, weights of 11 bits.
std::vector<Neighbours> neighbours(int length, int size, bool stops_at_border) {
    const double scale = static_cast<double>(length) / size;
    std::vector<Neighbours> points(size);
    for (int index = 0; index < size; ++index) {
        const float place = static_cast<float>((index + 0.5) * scale - 0.5);
        const int pixel = static_cast<int>(std::floor(place));
        float share = place - pixel;
        if (stops_at_border && (pixel < 0 || pixel >= length - 1)) share = 0;
        points[index] = {std::clamp(pixel, 0, length - 1), std::clamp(pixel + 1, 0, length - 1),
                         static_cast<int>(std::nearbyint((1 - share) * 2048)),
                         static_cast<int>(std::nearbyint(share * 2048))};
    }
    return points;
}

// Between pixels, in fixed point.
void interpolate(const Picture& source, Picture& target) {
    const auto rows = neighbours(source.height, target.height, false);
    const auto columns = neighbours(source.width, target.width, true);
    for (int y = 0; y < target.height; ++y)
        for (int x = 0; x < target.width; ++x)
            for (int c = 0; c < 3; ++c) {
                const auto along = [&](int row) {
                    const std::uint8_t* line = &source.data[std::size_t(row) * source.width * 3 + c];
                    return line[columns[x].before * 3] * columns[x].weight_before +
                           line[columns[x].after * 3] * columns[x].weight_after;
                };
                const int sum = ((rows[y].weight_before * (along(rows[y].before) >> 4)) >> 16) +
                                ((rows[y].weight_after * (along(rows[y].after) >> 4)) >> 16);
                target.data[(std::size_t(y) * target.width + x) * 3 + c] = (sum + 2) >> 2;
            }
}

}  // namespace

Picture resize(const Picture& source, int height, int width) {
    if (source.height == height && source.width == width) return source;
    Picture target{height, width, std::vector<std::uint8_t>(std::size_t(height) * width * 3)};
    if (source.height < height || source.width < width)
        interpolate(source, target);
    else if (source.height % height || source.width % width)
        average(source, target);
    else
        average_whole(source, target);
    return target;
}
