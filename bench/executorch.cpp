// ExecuTorch as a worker, without PyTorch: `executorch MODEL.pte SPEECH.f32 OUTPUTS [STATE.f32]`.
//
// Built against the shared libraries and headers in the wheel. Inputs and outputs are not part of the planned memory
// (convert.py), so two sets of buffers take turns as the state that goes in and the state that comes out: no copies.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <vector>

#include "worker.h"

// Its header is not in the wheel.
namespace executorch::extension::threadpool {
class ThreadPool {
public:
    bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool *get_threadpool();
}  // namespace executorch::extension::threadpool

using namespace executorch::extension;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Method;

static work job;
static Method *method;
static std::vector<std::vector<float>> states[2];  // by turns: what goes in, what comes out
static std::vector<TensorPtr> tensors[2];
static std::vector<float> beginning;
static std::vector<executorch::aten::SizesType> shape;
static int turn;

static void require(Error error, const char *what) {
    if (error != Error::Ok) fail(what);
}

static void call(const float *features) {
    TensorPtr input = from_blob(const_cast<float *>(features), shape);
    require(method->set_input(EValue(*input), 0), "set_input");
    for (size_t i = 0; i < tensors[turn].size(); i++) {
        auto &next = states[1 - turn][i];
        require(method->set_input(EValue(*tensors[turn][i]), i + 1), "set_input");
        require(method->set_output_data_ptr(next.data(), next.size() * sizeof(float), i + 1), "set_output_data_ptr");
    }
    require(method->set_output_data_ptr(job.log_probs, job.call_outputs * sizeof(float), 0), "set_output_data_ptr");
    require(method->execute(), "execute");
    turn = 1 - turn;
}

static void reset() {
    const float *from = beginning.data();
    turn = 0;
    for (auto &state : states[0]) {
        std::copy(from, from + state.size(), state.begin());
        from += state.size();
    }
}

int main(int argc, char **argv) {
    if (argc < 4) fail("usage: executorch MODEL SPEECH OUTPUTS [STATE]");
    size_t bytes;
    job.speech = static_cast<const float *>(map_file(argv[2], &bytes));
    job.call_outputs = static_cast<size_t>(atol(argv[3]));
    std::vector<float> log_probs(job.call_outputs);
    job.log_probs = log_probs.data();
    threadpool::get_threadpool()->_unsafe_reset_threadpool(1);
    print_memory();  // before the model
    fflush(stdout);

    Module module(argv[1], Module::LoadMode::Mmap);
    require(module.load_method("forward"), argv[1]);
    method = module.method("forward").get();
    const auto meta = method->method_meta();
    for (size_t i = 0; i < meta.num_inputs(); i++) {
        size_t count = 1;
        const auto info = meta.input_tensor_meta(i);
        std::vector<executorch::aten::SizesType> sizes(info->sizes().begin(), info->sizes().end());
        for (auto size : sizes) count *= static_cast<size_t>(size);
        if (i == 0) {
            shape = sizes;
            job.call_features = count;
            continue;
        }
        for (int k = 0; k < 2; k++) states[k].emplace_back(count);
        for (int k = 0; k < 2; k++) tensors[k].push_back(from_blob(states[k].back().data(), sizes));
    }
    job.calls = bytes / sizeof(float) / job.call_features;
    if (argc > 4) {
        const float *given = static_cast<const float *>(map_file(argv[4], &bytes));
        beginning.assign(given, given + bytes / sizeof(float));
    }
    size_t needed = 0;
    for (const auto &state : states[0]) needed += state.size();
    if (needed != beginning.size()) fail("the state does not fit the model");
    reset();
    serve(&job, call, reset);
}
