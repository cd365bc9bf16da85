// Hear the commands of an exported model in a WAV file: `listen BUNDLE FILE.wav`, 16 kHz, mono, 16 bits; no Python.
//
//     kouling export en-commands --target onnx -o BUNDLE
//     python3 engine/amalgamate.py .          kouling.c and kouling.h: features and decoder
//     cc -O2 -ffp-contract=off -c kouling.c
//     c++ -std=c++17 -O2 -I. -I/usr/include/onnxruntime listen.cpp kouling.o -lonnxruntime -lm -o listen
//
// The model runs in ONNX Runtime, which tells names and shapes; so model.json is not needed.
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "kouling.h"

[[noreturn]] static void fail(const std::string &text) {
    std::fprintf(stderr, "listen: %s\n", text.c_str());
    std::exit(2);
}

static void require(kouling_status status) {
    if (status != KOULING_OK) fail(kouling_message(status));
}

static std::vector<char> read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(path + ": cannot be read");
    return {std::istreambuf_iterator<char>(file), {}};
}

static void *aligned(size_t bytes) {
    return std::aligned_alloc(KOULING_ALIGN, (bytes / KOULING_ALIGN + 1) * KOULING_ALIGN);
}

// The model: features and the state in, logits out. What comes out as NAME.next goes in as NAME the next time.
class Step {
public:
    explicit Step(const std::string &bundle) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(1);  // a step is too small to share
        session = Ort::Session(environment, (bundle + "/model.onnx").c_str(), options);
        const auto file = read(bundle + "/state.bin");  // of the silence with which a stream begins
        const float *at = reinterpret_cast<const float *>(file.data());
        for (size_t i = 0; i < session.GetInputCount(); i++) {
            inputs.push_back(session.GetInputNameAllocated(i, allocator).get());
            outputs.push_back(session.GetOutputNameAllocated(i, allocator).get());
            const auto shape = session.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape();
            values.push_back(Ort::Value::CreateTensor<float>(allocator, shape.data(), shape.size()));
            const size_t count = values.back().GetTensorTypeAndShapeInfo().GetElementCount();
            if (i > 0) std::copy(at, at + count, values.back().GetTensorMutableData<float>()), at += count;
        }
    }
    float *features() { return values[0].GetTensorMutableData<float>(); }
    std::vector<float> run() {
        std::vector<const char *> in, out;
        for (const auto &name : inputs) in.push_back(name.c_str());
        for (const auto &name : outputs) out.push_back(name.c_str());
        auto found = session.Run(Ort::RunOptions(), in.data(), values.data(), in.size(), out.data(), out.size());
        const float *logits = found[0].GetTensorData<float>();
        std::vector<float> result(logits, logits + found[0].GetTensorTypeAndShapeInfo().GetElementCount());
        std::move(found.begin() + 1, found.end(), values.begin() + 1);
        return result;
    }

private:
    Ort::Env environment{ORT_LOGGING_LEVEL_ERROR};
    Ort::AllocatorWithDefaultOptions allocator;
    Ort::Session session{nullptr};
    std::vector<std::string> inputs, outputs;  // NAME, NAME.next
    std::vector<Ort::Value> values;
};

int main(int argc, char **argv) try {
    if (argc != 3) fail("usage: listen BUNDLE FILE.wav");
    const std::string bundle = argv[1];
    const auto wav = read(argv[2]);  // with the plain header of 44 bytes
    const std::string mono_16_khz("\1\0\x80\x3e\0\0", 6);
    if (wav.size() < 44 || std::string(&wav[36], 4) != "data" || std::string(&wav[22], 6) != mono_16_khz ||
        wav[34] != 16)
        fail(std::string(argv[2]) + ": not a plain WAV file of 16 kHz, mono, 16 bits");

    const auto packed = read(bundle + "/frontend.kouling");
    void *lies = aligned(packed.size());
    std::copy(packed.begin(), packed.end(), static_cast<char *>(lies));
    kouling_model model;
    kouling_stream *stream;
    uint32_t mels, frames, units;
    size_t bytes, used, came, taken, heard, filled = 0;
    require(kouling_model_open(&model, lies, packed.size()));
    require(kouling_shape(&model, &mels, &frames, &units));
    require(kouling_stream_size(&model, nullptr, KOULING_LIVE, &bytes));
    require(kouling_stream_init(&stream, &model, nullptr, KOULING_LIVE, aligned(bytes), bytes));
    std::vector<kouling_event> events(KOULING_MAX_EVENTS);
    Step step(bundle);

    std::vector<int16_t> samples((wav.size() - 44) / 2 + 32000);  // silence brings out what was said last
    std::copy(wav.begin() + 44, wav.end(), reinterpret_cast<char *>(samples.data()));
    for (size_t done = 0; done < samples.size(); done += used) {
        const size_t portion = std::min<size_t>(samples.size() - done, 1600);  // as from a microphone
        float *room = step.features() + filled * mels;
        require(kouling_features(stream, &samples[done], portion, &used, room, frames - filled, &came));
        if ((filled += came) < frames) continue;
        filled = 0;
        auto log_probs = step.run();
        for (size_t at = 0; at < log_probs.size(); at += units) {
            double sum = 0;
            for (size_t i = 0; i < units; i++) sum += std::exp(log_probs[at + i]);
            for (size_t i = 0; i < units; i++) log_probs[at + i] -= static_cast<float>(std::log(sum));
            require(kouling_decode(stream, &log_probs[at], 1, &taken, events.data(), &heard));
            for (size_t i = 0; i < heard; i++)
                std::printf("%8.3f %8.3f  %3.0f%%  %.*s\n", events[i].start_s, events[i].end_s,
                            100.0 * events[i].confidence, static_cast<int>(events[i].name_bytes), events[i].name);
        }
    }
} catch (const Ort::Exception &error) {
    fail(error.what());
}
