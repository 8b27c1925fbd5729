// Scores pictures with an edge-ad model file: one line of JSON for each picture.
//
//   edge_ad_score MODEL PICTURE.ppm...
//
// PPM (P6, 8 bits) is what `convert part.png part.ppm` writes, and close to what a camera gives.
// docs/model-file.md is the contract. Not done here: the checksum inside the file, see README.md.

#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>

#include "resize.hpp"

namespace {

using nlohmann::json;

constexpr int newest_format = 1;
constexpr int longest_side = 16384;

std::string read_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read the file");
    return {std::istreambuf_iterator<char>(file), {}};
}

// A frame in BGR, as the model takes it.
Picture read_frame(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string kind;
    int width = 0, height = 0, largest = 0;
    file >> kind >> width >> height >> largest;
    file.get();
    if (kind != "P6" || largest != 255 || width < 1 || height < 1 || width > longest_side || height > longest_side)
        throw std::runtime_error("expected a PPM file (P6, 8 bits)");
    Picture frame{height, width, std::vector<std::uint8_t>(std::size_t(width) * height * 3)};
    file.read(reinterpret_cast<char*>(frame.data.data()), std::streamsize(frame.data.size()));
    if (!file) throw std::runtime_error("the picture is cut off");
    for (std::size_t at = 0; at < frame.data.size(); at += 3) std::swap(frame.data[at], frame.data[at + 2]);
    return frame;
}

class Model {
public:
    explicit Model(const std::string& path) : session_(open(read_file(path))) {
        const auto format = metadata("edge_ad.format_version");
        const auto text = metadata("edge_ad.model");
        if (!format || !text) throw std::runtime_error("expected a file written by `edge-ad export`");
        if (std::stoi(*format) > newest_format)
            throw std::runtime_error("format version " + *format + " is newer than this program");
        const json document = json::parse(*text);
        height_ = document.at("input_size").at(0);
        width_ = document.at("input_size").at(1);
        threshold_ = document.at("threshold");
        resize_in_graph_ = document.value("resize_in_graph", false);
        if (document.contains("resize") && !document["resize"].is_null()) shorter_side_ = document["resize"];
        if (height_ < 32 || width_ < 32 || std::max({height_, width_, shorter_side_.value_or(0)}) > longest_side ||
            shorter_side_.value_or(longest_side) < std::max(height_, width_))
            throw std::runtime_error("the model file is damaged: its input size cannot be");
    }

    json score(const Picture& frame) {
        Picture input = prepare(frame);
        const std::int64_t shape[] = {1, input.height, input.width, 3};
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const auto tensor =
            Ort::Value::CreateTensor<std::uint8_t>(memory, input.data.data(), input.data.size(), shape, 4);
        const char* const inputs[] = {"frame"};
        const char* const outputs[] = {"score", "anomaly_map"};
        const auto values = session_.Run(Ort::RunOptions{nullptr}, inputs, &tensor, 1, outputs, 2);
        const float score = *values[0].GetTensorData<float>();
        if (!std::isfinite(score)) throw std::runtime_error("the score is not finite");
        const auto map_shape = values[1].GetTensorTypeAndShapeInfo().GetShape();
        if (map_shape != std::vector<std::int64_t>{1, height_, width_})
            throw std::runtime_error("the anomaly map has another size than the metadata say");
        const float* map = values[1].GetTensorData<float>();
        const auto highest = std::max_element(map, map + height_ * width_) - map;
        return {{"score", score},
                {"threshold", threshold_},
                {"anomalous", score >= threshold_},
                {"map_maximum", map[highest]},
                {"map_maximum_at", {highest / width_, highest % width_}}};
    }

private:
    // From bytes, which refuses files that point to other files.
    static Ort::Session open(const std::string& bytes) {
        static const Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "edge-ad");
        return Ort::Session(environment, bytes.data(), bytes.size(), Ort::SessionOptions());
    }

    std::optional<std::string> metadata(const char* key) const {
        Ort::AllocatorWithDefaultOptions allocator;
        const auto text = session_.GetModelMetadata().LookupCustomMetadataMapAllocated(key, allocator);
        return text ? std::optional<std::string>(text.get()) : std::nullopt;
    }

    Picture prepare(const Picture& frame) const {
        if (resize_in_graph_) return frame;
        if (!shorter_side_) return resize(frame, height_, width_);
        const double scale = static_cast<double>(*shorter_side_) / std::min(frame.height, frame.width);
        const Picture whole = resize(frame, std::max(int(std::nearbyint(frame.height * scale)), height_),
                                     std::max(int(std::nearbyint(frame.width * scale)), width_));
        const int top = (whole.height - height_) / 2, left = (whole.width - width_) / 2;
        Picture centre{height_, width_, {}};
        for (int y = 0; y < height_; ++y) {
            const auto start = whole.data.begin() + ((std::ptrdiff_t(top) + y) * whole.width + left) * 3;
            centre.data.insert(centre.data.end(), start, start + width_ * 3);
        }
        return centre;
    }

    Ort::Session session_;
    int height_ = 0;
    int width_ = 0;
    double threshold_ = 0;
    bool resize_in_graph_ = false;
    std::optional<int> shorter_side_;
};

}  // namespace

int main(int count, char** arguments) {
    if (count < 3) {
        std::cerr << "usage: edge_ad_score MODEL PICTURE.ppm...\n";
        return 2;
    }
    std::optional<Model> model;
    try {
        model.emplace(arguments[1]);
    } catch (const std::exception& error) {
        std::cerr << "cannot use the model file " << arguments[1] << ": " << error.what() << '\n';
        return 1;
    }
    int code = 0;
    for (int at = 2; at < count; ++at) {
        try {
            json line = model->score(read_frame(arguments[at]));
            line["path"] = arguments[at];
            std::cout << line.dump() << std::endl;
        } catch (const std::exception& error) {
            std::cerr << "cannot score the picture " << arguments[at] << ": " << error.what() << '\n';
            code = 1;
        }
    }
    return code;
}
