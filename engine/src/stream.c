/* The public interface: samples in, events out. */
#include <string.h>

#include "decoder.h"
#include "encoder.h"
#include "kouling.h"
#include "model.h"

#define READY 0x6b6c6e67u /* a stream that was initialised */
#define FLUSH_FRAMES 80   /* feature frames of silence that end a recording, besides the lookahead; recognizer.py's FLUSH_S */

struct kouling_stream {
    uint32_t ready;
    encoder encoder;
    decoder decoder;
    feature_tables tables;
    uint32_t samples_waiting, features_waiting, decoded, made; /* log-probabilities: made so far, decoded of them */
    int32_t ending; /* silent frames still to come, -1 while the audio lasts */
    int16_t samples[WINDOW_SAMPLES];
    float *features;  /* [most * subsampling][mels] */
    float *log_probs; /* [most][units] */
    float *hidden;    /* [most][width] where the command set has templates, else NULL */
};

/* Feature frames that a step consumes. */
static uint32_t step_of(const model_header *m) { return m->step_frames * m->subsampling; }

static size_t place(kouling_stream *s, const model_header *m, const command_set *commands, uint32_t frames, uint8_t *memory) {
    arena from = {memory, 0};
    const uint32_t most = frames > m->step_frames ? frames / m->step_frames * m->step_frames : m->step_frames;
    arena_take(&from, 1, sizeof *s);
    encoder_place(&s->encoder, m, most, &from);
    decoder_place(&s->decoder, commands, &from);
    s->features = arena_take(&from, (size_t)most * m->subsampling * m->mels, sizeof(float));
    s->log_probs = arena_take(&from, (size_t)most * m->units, sizeof(float));
    s->hidden = commands->templates.header ? arena_take(&from, (size_t)most * m->width, sizeof(float)) : NULL;
    return from.at;
}

static kouling_status choose(const kouling_model *model, const kouling_commands *commands, uint32_t frames,
                             const model_header **m, command_set *set) {
    if (!model || !model->data || (commands && !commands->data)) return KOULING_NULL;
    if (frames < 1 || frames > KOULING_MAX_FRAMES) return KOULING_NOT_ALLOWED;
    *m = model->data;
    const kouling_status status = commands_read(set, commands ? commands->data : (const uint8_t *)model->data + (*m)->commands_at);
    if (status != KOULING_OK) return status;
    const templates_header *recorded = set->templates.header; /* it may have been opened for another model */
    return set->header->units != (*m)->units || (recorded && recorded->width != (*m)->width) ? KOULING_UNFIT : KOULING_OK;
}

kouling_status kouling_stream_size(const kouling_model *model, const kouling_commands *commands, uint32_t frames,
                                   size_t *bytes) {
    const model_header *m;
    command_set set;
    kouling_stream unplaced;
    if (!bytes) return KOULING_NULL;
    const kouling_status status = choose(model, commands, frames, &m, &set);
    if (status == KOULING_OK) *bytes = place(&unplaced, m, &set, frames, NULL);
    return status;
}

kouling_status kouling_stream_init(kouling_stream **stream, const kouling_model *model, const kouling_commands *commands,
                                   uint32_t frames, void *memory, size_t bytes) {
    const model_header *m;
    command_set set;
    kouling_stream unplaced;
    if (!stream) return KOULING_NULL;
    *stream = NULL;
    if (!memory) return KOULING_NULL;
    if ((uintptr_t)memory % KOULING_ALIGN) return KOULING_MISALIGNED;
    if (bytes > MOST_BYTES) return KOULING_NOT_ALLOWED;
    kouling_stream *s = memory;
    memset(s, 0, bytes < sizeof *s ? bytes : sizeof *s); /* whatever goes wrong from here on, an earlier stream is no more */
    kouling_status status = choose(model, commands, frames, &m, &set);
    if (status != KOULING_OK) return status;
    if (bytes < place(&unplaced, m, &set, frames, NULL)) return KOULING_TOO_SMALL;
    place(s, m, &set, frames, memory);
    reader from = model_tables(m);
    s->tables = read_tables(&from, m);
    s->ready = READY;
    status = kouling_reset(s);
    if (status == KOULING_OK) *stream = s;
    return status;
}

kouling_status kouling_reset(kouling_stream *s) {
    if (!s) return KOULING_NULL;
    if (s->ready != READY) return KOULING_NOT_READY;
    const model_header *m = s->encoder.model;
    encoder_reset(&s->encoder);
    decoder_reset(&s->decoder);
    s->samples_waiting = s->features_waiting = s->decoded = s->made = 0;
    s->ending = -1;
    /* As if it had gone on for a while: models trained on streams hear best in the midst of one. */
    for (size_t i = 0; i < (size_t)s->encoder.most * m->subsampling * m->mels; i++) s->features[i] = m->priming_level;
    for (uint32_t left = m->priming_frames; left > 0;) {
        const uint32_t now = left < s->encoder.most ? left : s->encoder.most;
        encoder_run(&s->encoder, s->features, now, s->log_probs, NULL);
        left -= now;
    }
    return KOULING_OK;
}

int kouling_use_level(kouling_stream *s, const char *name) {
    const kernels *level = kernels_named(name);
    if (level) s->encoder.level = level;
    return level != NULL;
}

/* Samples into the window -> whether it is full. */
static int fill_window(kouling_stream *s, const int16_t *samples, size_t count, size_t *used) {
    const size_t room = WINDOW_SAMPLES - s->samples_waiting, left = count - *used, taken = left < room ? left : room;
    if (!taken) return 0; /* `samples` may be NULL; a window that is full is emptied at once */
    memcpy(s->samples + s->samples_waiting, samples + *used, taken * sizeof *samples);
    s->samples_waiting += (uint32_t)taken;
    *used += taken;
    return s->samples_waiting == WINDOW_SAMPLES;
}

static void make_features(kouling_stream *s, float *features) {
    s->encoder.level->log_mel(s->samples, &s->tables, features);
    s->samples_waiting = WINDOW_SAMPLES - HOP_SAMPLES;
    memmove(s->samples, s->samples + HOP_SAMPLES, s->samples_waiting * sizeof *s->samples);
}

/* Run the encoder over the whole steps that wait. */
static void make_log_probs(kouling_stream *s) {
    const model_header *m = s->encoder.model;
    const uint32_t step = step_of(m), whole = s->features_waiting / step * step;
    encoder_run(&s->encoder, s->features, whole / m->subsampling, s->log_probs, s->hidden);
    s->features_waiting -= whole;
    memmove(s->features, s->features + (size_t)whole * m->mels, (size_t)s->features_waiting * m->mels * sizeof(float));
    s->decoded = 0;
    s->made = whole / m->subsampling;
}

/* Decode what is made -> whether there was room for all events. */
static int decode(kouling_stream *s, kouling_event *events, size_t *heard) {
    const uint32_t units = s->encoder.model->units, width = s->encoder.model->width;
    while (s->decoded < s->made) {
        if (*heard + DECODER_EVENTS > KOULING_MAX_EVENTS || !decoder_has_room(&s->decoder)) return 0;
        const size_t n = s->decoded++;
        const float *hidden = s->hidden ? s->hidden + n * width : NULL;
        *heard += decoder_advance(&s->decoder, s->log_probs + n * units, hidden, events + *heard);
    }
    return 1;
}

kouling_status kouling_accept(kouling_stream *s, const int16_t *samples, size_t count, size_t *used,
                              kouling_event *events, size_t *heard) {
    if (!s || (!samples && count) || !used || !events || !heard) return KOULING_NULL;
    if (s->ready != READY) return KOULING_NOT_READY;
    if (count > MOST_BYTES / sizeof *samples) return KOULING_NOT_ALLOWED;
    const model_header *m = s->encoder.model;
    const uint32_t full = s->encoder.most * m->subsampling, step = step_of(m);
    *used = *heard = s->decoder.slot_count = 0;
    if (!decode(s, events, heard)) return KOULING_OK;
    while (fill_window(s, samples, count, used)) {
        make_features(s, s->features + (size_t)s->features_waiting++ * m->mels);
        if (s->features_waiting < full) continue;
        make_log_probs(s);
        if (!decode(s, events, heard)) return KOULING_OK;
    }
    if (s->features_waiting >= step) {
        make_log_probs(s);
        decode(s, events, heard); /* what finds no room is decoded by the next call */
    }
    return KOULING_OK;
}

kouling_status kouling_finish(kouling_stream *s, kouling_event *events, size_t *heard) {
    if (!s || !events || !heard) return KOULING_NULL;
    if (s->ready != READY) return KOULING_NOT_READY;
    const model_header *m = s->encoder.model;
    const uint32_t full = s->encoder.most * m->subsampling, step = step_of(m);
    *heard = s->decoder.slot_count = 0;
    if (!decode(s, events, heard)) return KOULING_OK;
    if (s->ending < 0) { /* silence up to a whole step */
        s->ending = (int32_t)(m->lookahead + FLUSH_FRAMES + step);
        s->ending -= (int32_t)((s->features_waiting + (uint32_t)s->ending) % step);
    }
    while (s->ending > 0) {
        const uint32_t room = full - s->features_waiting, now = (uint32_t)s->ending < room ? (uint32_t)s->ending : room;
        memset(s->features + (size_t)s->features_waiting * m->mels, 0, (size_t)now * m->mels * sizeof(float));
        s->features_waiting += now;
        s->ending -= (int32_t)now;
        make_log_probs(s);
        if (!decode(s, events, heard)) return KOULING_OK;
    }
    if (*heard + DECODER_EVENTS <= KOULING_MAX_EVENTS) *heard += decoder_flush(&s->decoder, events + *heard);
    return KOULING_OK;
}

kouling_status kouling_features(kouling_stream *s, const int16_t *samples, size_t count, size_t *used, float *features,
                                size_t room, size_t *frames) {
    if (!s || (!samples && count) || !used || (!features && room) || !frames) return KOULING_NULL;
    if (s->ready != READY) return KOULING_NOT_READY;
    if (count > MOST_BYTES / sizeof *samples) return KOULING_NOT_ALLOWED;
    *used = *frames = 0;
    while (*frames < room && fill_window(s, samples, count, used)) make_features(s, features + s->encoder.model->mels * (*frames)++);
    return KOULING_OK;
}

/* The encoder over many frames at once: log-probabilities into `out`, or what the last block says. */
static kouling_status run(kouling_stream *s, const float *features, size_t frames, float *out, int hidden) {
    if (!s || ((!features || !out) && frames)) return KOULING_NULL;
    if (s->ready != READY) return KOULING_NOT_READY;
    const model_header *m = s->encoder.model;
    const size_t most = MOST_BYTES / sizeof(float), numbers = hidden ? m->width : m->units;
    if (frames % step_of(m) || frames > most / m->mels || frames / m->subsampling > most / numbers) return KOULING_NOT_ALLOWED;
    for (size_t left = frames / m->subsampling; left > 0;) {
        const uint32_t now = left < s->encoder.most ? (uint32_t)left : s->encoder.most;
        encoder_run(&s->encoder, features, now, hidden ? s->log_probs : out, hidden ? out : NULL);
        features += (size_t)now * m->subsampling * m->mels;
        out += (size_t)now * numbers;
        left -= now;
    }
    return KOULING_OK;
}

kouling_status kouling_log_probs(kouling_stream *s, const float *features, size_t frames, float *log_probs) {
    return run(s, features, frames, log_probs, 0);
}

kouling_status kouling_hidden(kouling_stream *s, const float *features, size_t frames, float *hidden) {
    return run(s, features, frames, hidden, 1);
}

kouling_status kouling_decode(kouling_stream *s, const float *log_probs, size_t frames, size_t *used,
                              kouling_event *events, size_t *heard) {
    if (!s || (!log_probs && frames) || !used || !events || !heard) return KOULING_NULL;
    if (s->ready != READY) return KOULING_NOT_READY;
    const uint32_t units = s->encoder.model->units;
    if (frames > MOST_BYTES / sizeof(float) / units || s->hidden) return KOULING_NOT_ALLOWED;
    *used = *heard = s->decoder.slot_count = 0;
    for (; *used < frames && *heard + DECODER_EVENTS <= KOULING_MAX_EVENTS && decoder_has_room(&s->decoder); ++*used)
        *heard += decoder_advance(&s->decoder, log_probs + *used * units, NULL, events + *heard);
    return KOULING_OK;
}

kouling_status kouling_width(const kouling_model *model, uint32_t *width) {
    if (!model || !model->data || !width) return KOULING_NULL;
    *width = ((const model_header *)model->data)->width;
    return KOULING_OK;
}

kouling_status kouling_shape(const kouling_model *model, uint32_t *mels, uint32_t *step, uint32_t *units) {
    if (!model || !model->data || !mels || !step || !units) return KOULING_NULL;
    const model_header *m = model->data;
    *mels = m->mels;
    *step = step_of(m);
    *units = m->units;
    return KOULING_OK;
}
