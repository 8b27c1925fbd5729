// The resize of docs/model-file.md, equal in every bit to the one of the device.
#pragma once

#include <cstdint>
#include <vector>

// 8 bits a channel, row by row, three channels.
struct Picture {
    int height = 0;
    int width = 0;
    std::vector<std::uint8_t> data;
};

Picture resize(const Picture& picture, int height, int width);
