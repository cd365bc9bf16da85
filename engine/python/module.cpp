// kouling._engine: the C interface for Python. Models and streams keep alive what they point to; the GIL is released
// while samples are worked on.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "kouling.h"

namespace nb = nanobind;
using Samples = nb::ndarray<const int16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Features = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

static void require(kouling_status status) {
    if (status != KOULING_OK) throw nb::value_error(kouling_message(status));
}

// Memory aligned as models and streams need it.
class Memory {
public:
    explicit Memory(size_t size) : bytes(static_cast<uint8_t *>(operator new(size, std::align_val_t(KOULING_ALIGN)))) {}
    Memory(const Memory &) = delete;
    ~Memory() { operator delete(bytes, std::align_val_t(KOULING_ALIGN)); }
    uint8_t *const bytes;
};

class Model {
public:
    explicit Model(nb::bytes file) : memory(file.size()) {
        std::memcpy(memory.bytes, file.c_str(), file.size());
        require(kouling_model_open(&model, memory.bytes, file.size()));
        require(kouling_shape(&model, &mels, &step, &units));
        require(kouling_width(&model, &width));
    }
    std::string text() const {
        const char *text;
        size_t size;
        require(kouling_model_text(&model, &text, &size));
        return {text, size};
    }
    kouling_model model{};
    uint32_t mels{}, step{}, units{}, width{};

private:
    Memory memory;
};

// An event and its slots, which the stream keeps only until its next call.
struct Heard {
    explicit Heard(const kouling_event &event) : event(event), slots(event.slots, event.slots + event.slot_count) {
        for (uint32_t i = 0; i < event.slot_count; i++) // a text may lie in the slot itself
            if (event.slots[i].text == event.slots[i].joined) slots[i].text = slots[i].joined;
    }
    Heard(Heard &&) = default; // moves the slots' memory, so nothing in it
    kouling_event event;
    std::vector<kouling_slot> slots;
};

class Stream {
public:
    Stream(std::shared_ptr<const Model> owner, nb::object set, uint32_t frames) : owner(std::move(owner)) {
        kouling_commands opened, *chosen = nullptr;
        if (!set.is_none()) {
            const auto file = nb::cast<nb::bytes>(set);
            commands = std::make_unique<Memory>(file.size());
            std::memcpy(commands->bytes, file.c_str(), file.size());
            require(kouling_commands_open(&opened, &this->owner->model, commands->bytes, file.size()));
            chosen = &opened;
        }
        require(kouling_stream_size(&this->owner->model, chosen, frames, &size));
        memory = std::make_unique<Memory>(size);
        require(kouling_stream_init(&stream, &this->owner->model, chosen, frames, memory->bytes, size));
    }
    void reset() {
        nb::gil_scoped_release released;
        require(kouling_reset(stream));
    }
    nb::list accept(Samples samples) {
        std::vector<Heard> heard;
        {
            nb::gil_scoped_release released;
            size_t used, count;
            for (size_t done = 0; done < samples.size(); done += used) {
                require(kouling_accept(stream, samples.data() + done, samples.size() - done, &used, events, &count));
                for (size_t i = 0; i < count; i++) heard.emplace_back(events[i]);
            }
        }
        return as_list(heard);
    }
    nb::list finish() {
        std::vector<Heard> heard;
        {
            nb::gil_scoped_release released;
            for (size_t count = 1; count > 0;) {
                require(kouling_finish(stream, events, &count));
                for (size_t i = 0; i < count; i++) heard.emplace_back(events[i]);
            }
        }
        return as_list(heard);
    }
    nb::object features(Samples samples) {
        const size_t most = samples.size() / 160 + 2; // one more than come, so that all samples are taken
        auto *made = new float[most * owner->mels];
        nb::capsule keeper(made, [](void *p) noexcept { delete[] static_cast<float *>(p); });
        size_t used, count;
        {
            nb::gil_scoped_release released;
            require(kouling_features(stream, samples.data(), samples.size(), &used, made, most, &count));
        }
        return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(made, {count, owner->mels}, keeper));
    }
    nb::object log_probs(Features features, uint32_t subsampling) {
        return run(kouling_log_probs, features, subsampling, owner->units);
    }
    nb::object hidden(Features features, uint32_t subsampling) {
        return run(kouling_hidden, features, subsampling, owner->width);
    }
    nb::list decode(Features log_probs) {
        if (log_probs.shape(1) != owner->units) throw nb::value_error("log_probs must be (N, units)");
        std::vector<Heard> all;
        {
            nb::gil_scoped_release released;
            for (size_t at = 0, used = 0, heard = 0; at < log_probs.shape(0); at += used) {
                const float *left = log_probs.data() + at * owner->units;
                require(kouling_decode(stream, left, log_probs.shape(0) - at, &used, events, &heard));
                for (size_t i = 0; i < heard; i++) all.emplace_back(events[i]);
            }
        }
        return as_list(all);
    }
    size_t size{};

private:
    // One of the encoder's outputs, `numbers` of each frame.
    nb::object run(decltype(kouling_log_probs) *call, const Features &features, uint32_t subsampling, uint32_t numbers) {
        if (features.shape(1) != owner->mels || features.shape(0) % owner->step)
            throw nb::value_error("features must be (T, mels), T a multiple of the step");
        const size_t count = features.shape(0) / subsampling;
        auto *made = new float[count * numbers + 1];
        nb::capsule keeper(made, [](void *p) noexcept { delete[] static_cast<float *>(p); });
        {
            nb::gil_scoped_release released;
            require(call(stream, features.data(), features.shape(0), made));
        }
        return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(made, {count, numbers}, keeper));
    }
    static nb::list as_list(const std::vector<Heard> &heard) {
        nb::list all;
        for (const auto &each : heard) {
            nb::list slots;
            for (const auto &s : each.slots) {
                nb::object value = s.text ? nb::object(nb::str(s.text, s.text_bytes)) : nb::object(nb::int_(s.number));
                slots.append(nb::make_tuple(nb::str(s.name, s.name_bytes), value, s.confidence));
            }
            const auto &e = each.event;
            all.append(nb::make_tuple(e.command, e.start_s, e.end_s, e.confidence, slots));
        }
        return all;
    }
    std::shared_ptr<const Model> owner;
    std::unique_ptr<Memory> commands, memory;
    kouling_stream *stream{};
    kouling_event events[KOULING_MAX_EVENTS];
};

NB_MODULE(_engine, m) {
    m.attr("LIVE") = KOULING_LIVE;
    m.attr("FILE") = KOULING_FILE;
    nb::class_<Model>(m, "Model")
        .def(nb::init<nb::bytes>(), nb::arg("file"))
        .def_prop_ro("text", &Model::text);
    nb::class_<Stream>(m, "Stream")
        .def(nb::init<std::shared_ptr<const Model>, nb::object, uint32_t>(), nb::arg("model"),
             nb::arg("commands").none(), nb::arg("frames"))
        .def_ro("size", &Stream::size)
        .def("reset", &Stream::reset)
        .def("accept", &Stream::accept, nb::arg("samples"))
        .def("finish", &Stream::finish)
        .def("features", &Stream::features, nb::arg("samples"))
        .def("log_probs", &Stream::log_probs, nb::arg("features"), nb::arg("subsampling"))
        .def("hidden", &Stream::hidden, nb::arg("features"), nb::arg("subsampling"))
        .def("decode", &Stream::decode, nb::arg("log_probs"));
}
