#include "model.h"

#include <string.h>

#include "decoder.h"
#include "kouling.h"

#define CHECKED_FROM 20 /* the checksum covers all that lies behind itself */
#define LINEARS_OF_STEM 3 /* and one for each of its further layers */
#define LINEARS_OF_BLOCK 8

uint32_t checksum(const uint8_t *bytes, size_t count) {
    static const uint32_t table[16] = {0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
                                       0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
                                       0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < count; i++) {
        crc = (crc >> 4) ^ table[(crc ^ bytes[i]) & 15];
        crc = (crc >> 4) ^ table[(crc ^ (bytes[i] >> 4)) & 15];
    }
    return ~crc;
}

static const void *take(reader *from, size_t count, size_t size) {
    const size_t room = from->end - from->at;
    const uint64_t bytes = ((uint64_t)count * size + MODEL_ALIGN - 1) / MODEL_ALIGN * MODEL_ALIGN;
    if (from->failed || count > room || bytes > room) { /* no more numbers than bytes: so few that their product is right */
        from->failed = 1;
        return NULL;
    }
    const uint8_t *found = from->base + from->at;
    from->at += (size_t)bytes;
    return found;
}

reader model_weights(const model_header *model) {
    reader from = {(const uint8_t *)model, model->weights_at, model->file_bytes, NULL, model->taps == TAPS_BFLOAT16, 0};
    from.kinds = take(&from, model->linears, 1);
    return from;
}

const float *read_floats(reader *from, size_t count) { return take(from, count, sizeof(float)); }

static numbers numbers_of(reader *from, size_t count, int brief) {
    numbers found = {NULL, NULL};
    if (brief)
        found.halves = take(from, count, sizeof(uint16_t));
    else
        found.floats = read_floats(from, count);
    return found;
}

numbers read_taps(reader *from, size_t count) { return numbers_of(from, count, from->brief_taps); }

linear read_linear(reader *from, uint32_t outputs, uint32_t inputs) {
    linear found = {0};
    found.inputs = inputs;
    found.fours = (inputs + 3) / 4;
    found.blocks = (outputs + 15) / 16;
    const size_t columns = (size_t)found.blocks * 16;
    size_t kept;
    const uint8_t kind = from->failed ? WEIGHTS_FLOAT : *from->kinds++;
    switch (kind) {
    case WEIGHTS_FLOAT:
    case WEIGHTS_BFLOAT16:
        found.real = numbers_of(from, columns * inputs, kind == WEIGHTS_BFLOAT16);
        break;
    case WEIGHTS_INT8:
        found.weights = take(from, columns * found.fours * 4, 1);
        found.scale = take(from, columns, sizeof(uint16_t));
        found.sums = take(from, columns, sizeof(int32_t));
        break;
    case WEIGHTS_SPARSE:
        from->failed |= inputs > SPARSE_MOST_INPUTS;
        found.first_kept = take(from, (size_t)found.blocks + 1, sizeof(uint32_t));
        kept = found.first_kept ? found.first_kept[found.blocks] : 0;
        found.kept = take(from, kept, sizeof(uint16_t));
        found.weights = take(from, kept, 64);
        found.scale = take(from, columns, sizeof(uint16_t));
        found.sums = take(from, columns, sizeof(int32_t));
        break;
    case WEIGHTS_INT4:
        found.groups = (inputs + GROUP - 1) / GROUP;
        from->failed |= found.groups > INT4_MOST_GROUPS;
        found.weights = take(from, columns * found.groups, GROUP / 2);
        found.multipliers = take(from, columns * found.groups, 1);
        found.scale = take(from, columns, sizeof(uint16_t));
        break;
    default:
        from->failed = 1;
    }
    found.bias = numbers_of(from, columns, kind != WEIGHTS_FLOAT);
    return found;
}

reader model_tables(const model_header *model) {
    return (reader){(const uint8_t *)model, model->tables_at, model->weights_at, NULL, 0, 0};
}

feature_tables read_tables(reader *from, const model_header *model) {
    feature_tables t = {.mels = model->mels, .floor = model->log_floor, .scale = model->log_scale};
    t.window = read_floats(from, WINDOW_SAMPLES / 2);
    t.turn = read_floats(from, 2 * 256);
    t.unpack = read_floats(from, 384);
    t.first_bin = take(from, t.mels, 1);
    t.bins = take(from, t.mels, 1);
    size_t weights = 0;
    for (uint32_t i = 0; !from->failed && i < t.mels; i++) weights += t.bins[i];
    t.triangles = read_floats(from, weights);
    return t;
}

/* What models and command sets have in common: magic[8], version, file_bytes, checksum. */
static kouling_status check_file(const void *data, size_t bytes, const char *magic, uint32_t oldest, uint32_t version,
                                 size_t header, kouling_status not_one) {
    uint32_t fields[3];
    if (!data) return KOULING_NULL;
    if ((uintptr_t)data % KOULING_ALIGN) return KOULING_MISALIGNED;
    if (bytes > MOST_BYTES) return KOULING_NOT_ALLOWED;
    if (bytes < 8 || memcmp(data, magic, 8)) return not_one;
    if (bytes < CHECKED_FROM) return KOULING_TRUNCATED;
    memcpy(fields, (const uint8_t *)data + 8, sizeof fields);
    if (fields[0] > version) return KOULING_NEWER;
    if (fields[0] && fields[0] < oldest) return KOULING_OLDER;
    if (!fields[0] || fields[1] < header) return KOULING_CORRUPT;
    if (bytes < fields[1]) return KOULING_TRUNCATED;
    const uint32_t found = checksum((const uint8_t *)data + CHECKED_FROM, fields[1] - CHECKED_FROM);
    return found == fields[2] ? KOULING_OK : KOULING_CORRUPT;
}

static int within(uint32_t value, uint32_t least, uint32_t most, uint32_t multiple) {
    return value >= least && value <= most && value % multiple == 0;
}

static int is_section(uint32_t at, uint32_t bytes, uint32_t from, uint32_t file_bytes) {
    return at % MODEL_ALIGN == 0 && at >= from && at <= file_bytes && bytes <= file_bytes - at;
}

static int tables_fit(const model_header *m) {
    reader from = model_tables(m);
    const feature_tables t = read_tables(&from, m);
    for (uint32_t i = 0; !from.failed && i < t.mels; i++)
        if (t.first_bin[i] + t.bins[i] > 256) return 0;
    return !from.failed && from.at == m->weights_at;
}

/* What a sparse layer keeps lies within its inputs, no four of them twice: no more than int32 can add up. */
static int kept_fit(const linear *w) {
    if (w->first_kept[0]) return 0;
    for (uint32_t b = 0; b < w->blocks; b++) {
        const uint32_t first = w->first_kept[b], end = w->first_kept[b + 1];
        if (end < first || end > w->first_kept[w->blocks]) return 0;
        for (uint32_t i = first; i < end; i++)
            if (w->kept[i] >= w->fours || (i > first && w->kept[i] <= w->kept[i - 1])) return 0;
    }
    return 1;
}

static void pass_linear(reader *from, uint32_t outputs, uint32_t inputs) {
    const linear passed = read_linear(from, outputs, inputs);
    if (!from->failed && passed.kept) from->failed = !kept_fit(&passed);
}

reader walk_weights(const model_header *m) {
    const uint32_t width = m->width, channels = m->stem_channels;
    reader from = model_weights(m);
    pass_linear(&from, channels, 5 * (m->lookahead + m->subsampling));
    for (uint32_t i = 0; i < m->stem_layers + 1; i++) pass_linear(&from, channels, 3 * channels);
    pass_linear(&from, width, channels * (m->mels / 4));
    read_floats(&from, width), read_floats(&from, width);
    for (uint32_t i = 0; i < m->layers; i++) {
        const layer_shape *layer = &model_layers(m)[i];
        const uint32_t attended = attention_width(m, i), convolved = layer->channels;
        pass_linear(&from, layer->ffn_in, width), pass_linear(&from, width, layer->ffn_in);
        pass_linear(&from, 3 * attended, width), pass_linear(&from, width, attended);
        read_floats(&from, m->attention == ATTENTION_LINEAR ? layer->heads : (size_t)layer->heads * (m->left_context + 1));
        pass_linear(&from, 2 * convolved, width);
        read_taps(&from, (size_t)m->kernel * convolved), read_taps(&from, convolved);
        if (m->state == STATE_INT8) read_floats(&from, convolved);
        pass_linear(&from, width, convolved);
        pass_linear(&from, layer->ffn_out, width), pass_linear(&from, width, layer->ffn_out);
        read_floats(&from, width), read_floats(&from, width);
    }
    pass_linear(&from, m->units, width);
    return from;
}

/* The table of layers lies inside the file. */
static int layers_fit(const model_header *m) {
    for (uint32_t i = 0; i < m->layers; i++) {
        const layer_shape *layer = &model_layers(m)[i];
        if (!within(layer->heads, 1, 64, 1) || !within(attention_width(m, i), 16, 4096, 16) || !within(layer->ffn_in, 16, 16384, 16) ||
            !within(layer->ffn_out, 16, 16384, 16) || !within(layer->channels, 16, 4096, 16))
            return 0;
    }
    return 1;
}

static int weights_fit(const model_header *m) {
    const reader from = walk_weights(m);
    return !from.failed && from.at == m->commands_at;
}

kouling_status kouling_model_open(kouling_model *model, const void *data, size_t bytes) {
    if (!model) return KOULING_NULL;
    model->data = NULL;
    const kouling_status status = check_file(data, bytes, "KOULING", MODEL_OLDEST, MODEL_VERSION, sizeof(model_header), KOULING_NO_MODEL);
    if (status != KOULING_OK) return status;
    const model_header *m = data;
    const int shape = within(m->mels, 8, 128, 4) && within(m->layers, 1, 64, 1) && within(m->width, 16, 4096, 16) && within(m->head_size, 1, 4096, 1) &&
                      within(m->kernel, 2, 1024, 1) && within(m->attention, ATTENTION_WINDOWED, ATTENTION_LINEAR, 1) &&
                      within(m->stem_channels, 16, 1024, 16) &&
                      within(m->stem_layers, 0, 64, 1) && within(m->subsampling, 1, MODEL_MAX_WINDOW, 1) &&
                      m->lookahead <= MODEL_MAX_WINDOW - m->subsampling &&
                      within(m->step_frames, 1, KOULING_MAX_FRAMES, 1) && (m->attention == ATTENTION_LINEAR ? !m->left_context : within(m->left_context, 1, 4096, 1)) &&
                      within(m->units, 2, 65536, 1) && m->priming_frames <= 65536 && m->state <= STATE_INT8 && m->taps <= TAPS_BFLOAT16 && m->log_scale > 0 &&
                      m->norm <= (m->version > MODEL_OLDEST ? NORM_BATCH : NORM_LAYER) &&
                      m->priming_level >= 0 && m->priming_level <= 10 &&
                      m->linears == LINEARS_OF_STEM + m->stem_layers + LINEARS_OF_BLOCK * m->layers + 1;
    if (!shape) return KOULING_CORRUPT;
    const uint32_t layers_end = (uint32_t)(sizeof(model_header) + m->layers * sizeof(layer_shape));
    const int sections = is_section(m->tables_at, 0, layers_end, m->file_bytes) &&
                         is_section(m->weights_at, 0, m->tables_at, m->file_bytes) &&
                         is_section(m->commands_at, m->commands_bytes, m->weights_at, m->file_bytes) &&
                         is_section(m->text_at, m->text_bytes, m->commands_at, m->file_bytes);
    if (!sections || !layers_fit(m) || !tables_fit(m) || !weights_fit(m)) return KOULING_CORRUPT;
    kouling_commands own;
    model->data = data;
    const kouling_status inner = kouling_commands_open(&own, model, (const uint8_t *)data + m->commands_at, m->commands_bytes);
    if (inner != KOULING_OK) model->data = NULL;
    return inner == KOULING_OK ? KOULING_OK : KOULING_CORRUPT;
}

kouling_status kouling_model_text(const kouling_model *model, const char **text, size_t *bytes) {
    if (!model || !model->data || !text || !bytes) return KOULING_NULL;
    const model_header *m = model->data;
    *text = (const char *)model->data + m->text_at;
    *bytes = m->text_bytes;
    return KOULING_OK;
}

kouling_status kouling_commands_open(kouling_commands *commands, const kouling_model *model, const void *data, size_t bytes) {
    command_set set;
    if (!commands) return KOULING_NULL;
    commands->data = NULL;
    if (!model || !model->data) return KOULING_NULL;
    kouling_status status = check_file(data, bytes, "KLWORDS", COMMANDS_OLDEST, COMMANDS_VERSION, sizeof(commands_header), KOULING_NO_COMMANDS);
    if (status == KOULING_OK) status = commands_read(&set, data);
    if (status == KOULING_OK && set.header->units != ((const model_header *)model->data)->units) status = KOULING_UNFIT;
    if (status == KOULING_OK) commands->data = data;
    return status;
}

static int all_within(const int32_t *values, uint32_t count, int32_t least, int64_t most) {
    for (uint32_t i = 0; i < count; i++)
        if (values[i] < least || values[i] > most) return 0;
    return 1;
}

static int ascending(const uint32_t *at, uint32_t count, uint32_t end) {
    for (uint32_t i = 0; i < count; i++)
        if (at[i] > at[i + 1]) return 0;
    return at[count] <= end;
}

/* Whether the graphs behind a command set make sense. */
static int graph_read(graph *g, const commands_header *of) {
    if (!is_section(of->graph_at, sizeof(graph_header), sizeof *of, of->file_bytes)) return 0;
    reader from = {(const uint8_t *)of, of->graph_at, of->file_bytes, NULL, 0, 0};
    const graph_header *h = take(&from, 1, sizeof *h);
    if (from.failed || !within(h->nodes, 1, 1u << 20, 1) || h->arcs > 1u << 24 || h->slots > 65536 ||
        !(h->fillers >= 0 && h->fillers <= 1) || !(h->past_weak >= 0 && h->past_weak <= 1) || !(h->per_word >= 0 && h->per_word <= 10))
        return 0;
    g->unit = take(&from, h->nodes, 4), g->command = take(&from, h->nodes, 4);
    g->slot = take(&from, h->nodes, 4), g->adds = take(&from, h->nodes, 4);
    g->flags = take(&from, h->nodes, 1);
    g->before_at = take(&from, (size_t)h->nodes + 1, 4), g->before = take(&from, h->arcs, 4);
    g->piece_at = take(&from, (size_t)h->nodes + 1, 4);
    g->name_at = take(&from, (size_t)h->slots + 1, 4), g->is_number = take(&from, h->slots, 1);
    g->text = take(&from, h->text_bytes, 1);
    if (from.failed) return 0;
    g->header = h;
    return all_within(g->unit, h->nodes, 0, (int64_t)of->units - 1) && all_within(g->command, h->nodes, 0, (int64_t)of->commands - 1) &&
           all_within(g->slot, h->nodes, -1, (int64_t)h->slots - 1) && all_within(g->adds, h->nodes, 0, 1000000) &&
           ascending(g->before_at, h->nodes, h->arcs) && all_within(g->before, h->arcs, -(int64_t)h->nodes, (int64_t)h->nodes - 1) &&
           ascending(g->piece_at, h->nodes, h->text_bytes) && ascending(g->name_at, h->slots, h->text_bytes);
}

/* Whether the templates behind a command set make sense. */
static int templates_read(templates *t, const commands_header *of) {
    if (!is_section(of->templates_at, sizeof(templates_header), sizeof *of, of->file_bytes)) return 0;
    reader from = {(const uint8_t *)of, of->templates_at, of->file_bytes, NULL, 0, 0};
    const templates_header *h = take(&from, 1, sizeof *h);
    if (from.failed || !within(h->commands, 1, of->commands, 1) || !within(h->templates, h->commands, 1u << 16, 1) ||
        !within(h->rows, h->templates, 1u << 20, 1) || !within(h->width, 16, 4096, 16) || h->tail > 1000)
        return 0;
    t->command = take(&from, h->commands, 4);
    t->template_at = take(&from, (size_t)h->commands + 1, 4), t->row_at = take(&from, (size_t)h->templates + 1, 4);
    t->rows = take(&from, (size_t)h->rows * h->width, 4), t->bias = take(&from, h->rows, 4);
    if (from.failed || !all_within(t->command, h->commands, 0, (int64_t)of->commands - 1)) return 0;
    if (t->template_at[0] || t->template_at[h->commands] != h->templates || t->row_at[0] || t->row_at[h->templates] != h->rows) return 0;
    for (uint32_t c = 0; c < h->commands; c++) /* none of either is empty */
        if (t->template_at[c] >= t->template_at[c + 1] || (c && t->command[c - 1] >= t->command[c])) return 0;
    for (uint32_t i = 0; i < h->templates; i++)
        if (t->row_at[i] >= t->row_at[i + 1]) return 0;
    t->header = h;
    return 1;
}

kouling_status commands_read(command_set *set, const void *data) {
    const commands_header *h = data;
    const int has_graph = h->version >= 2 && h->graph_at, has_templates = h->version >= 3 && h->templates_at;
    memset(&set->graph, 0, sizeof set->graph);
    memset(&set->templates, 0, sizeof set->templates);
    reader from = {data, sizeof *h, h->file_bytes, NULL, 0, 0};
    if (!within(h->nodes, has_graph || has_templates ? 1 : 2, 1u << 20, 1) || !within(h->commands, 1, 1u << 16, 1) || !within(h->units, 2, 65536, 1) ||
        !within(h->settle, 1, 65536, 1) || h->isolation > 65536 || h->hesitation > 65536 || h->unknown >= h->units)
        return KOULING_CORRUPT;
    set->header = h;
    set->unit = take(&from, h->nodes, 4), set->parent = take(&from, h->nodes, 4), set->command = take(&from, h->nodes, 4);
    set->depth = take(&from, h->nodes, 4), set->first_unit = take(&from, h->nodes, 4);
    set->beyond_at = take(&from, (size_t)h->nodes + 1, 4), set->beyond = take(&from, h->beyond, 4);
    set->threshold = take(&from, h->commands, 8);
    set->onset_s = take(&from, h->units, 8), set->offset_s = take(&from, h->units, 8);
    set->name_at = take(&from, (size_t)h->commands + 1, 4);
    set->text = take(&from, h->text_bytes, 1);
    if (from.failed) return KOULING_CORRUPT;
    const int32_t units = (int32_t)h->units, nodes = (int32_t)h->nodes;
    int fits = all_within(set->unit, h->nodes, 0, units - 1) && all_within(set->first_unit, h->nodes, 0, units - 1) &&
               all_within(set->command, h->nodes, -1, (int64_t)h->commands - 1) &&
               all_within(set->beyond_at, h->nodes + 1, 0, h->beyond) && all_within(set->beyond, h->beyond, 1, nodes - 1) &&
               set->parent[0] == 0 && set->command[0] == -1;
    for (int32_t n = 1; fits && n < nodes; n++) fits = set->parent[n] >= 0 && set->parent[n] < n;
    for (uint32_t c = 0; fits && c < h->commands; c++)
        fits = set->name_at[c] <= set->name_at[c + 1] && set->name_at[c + 1] <= h->text_bytes;
    if (fits && has_graph) fits = graph_read(&set->graph, h);
    if (fits && has_templates) fits = templates_read(&set->templates, h);
    return fits ? KOULING_OK : KOULING_CORRUPT;
}

const char *kouling_message(kouling_status status) {
    static const char *const messages[] = {
        "no error",
        "a pointer is null",
        "memory is not aligned to 64 bytes",
        "the file is cut short",
        "this is no model of kouling",
        "this is no command set of kouling",
        "the file was made by a newer version of kouling",
        "the file was written by an older kouling; export the model again",
        "the file is damaged",
        "the command set was made for another model",
        "the memory is smaller than kouling_stream_size says",
        "the stream is not initialised",
        "a number is not among those allowed",
    };
    return (unsigned)status < sizeof messages / sizeof *messages ? messages[status] : "unknown status";
}
