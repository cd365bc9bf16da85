/* Every function used wrongly in every way that it can tell: `misuse MODEL SET SLOTS` says where the answer is not the one
 * that kouling.h names. Meant to be built with sanitizers; the files are seeds of engine/fuzz/corpus. Here: files, and what is
 * opened; in misuse_streams.c: streams. */
#include "misuse.h"

int failures;

void expect(kouling_status found, kouling_status expected, const char *call, int line) {
    if (found == expected) return;
    fprintf(stderr, "%d: %s: \"%s\" instead of \"%s\"\n", line, call, kouling_message(found), kouling_message(expected));
    failures++;
}

typedef struct {
    uint8_t *bytes;
    size_t size;
} content;

uint8_t *aligned(size_t size) {
    void *memory;
    if (posix_memalign(&memory, KOULING_ALIGN, size)) exit(2);
    return memory;
}

static content copy_of(content from, size_t size) { /* exactly so many, that a sanitizer sees one too many */
    content copy = {aligned(size), size};
    memcpy(copy.bytes, from.bytes, size < from.size ? size : from.size);
    return copy;
}

static content read_file(const char *path) {
    static uint8_t room[1 << 16];
    FILE *file = fopen(path, "rb");
    if (!file) perror(path), exit(2);
    const content found = {room, fread(room, 1, sizeof room, file)};
    fclose(file);
    return copy_of(found, found.size);
}

/* With another number at a place, and a checksum that fits if it is to be mended. */
static content changed(content from, size_t at, uint32_t value, int mend) {
    content copy = copy_of(from, from.size);
    memcpy(copy.bytes + at, &value, 4);
    const uint32_t sum = checksum(copy.bytes + 20, from.size - 20);
    if (mend) memcpy(copy.bytes + offsetof(model_header, checksum), &sum, 4);
    return copy;
}

#define UNITS_OF_SET offsetof(commands_header, units)

/* The same model with one unit more, for which there is room in all that is filled up. */
static content with_one_unit_more(content from) {
    const model_header *m = (const model_header *)(const void *)from.bytes;
    const content own = {from.bytes + m->commands_at, m->commands_bytes};
    const content set = changed(own, UNITS_OF_SET, m->units + 1, 1);
    content copy = copy_of(from, from.size);
    memcpy(copy.bytes + m->commands_at, set.bytes, set.size);
    free(set.bytes);
    const content all = changed(copy, offsetof(model_header, units), m->units + 1, 1);
    free(copy.bytes);
    return all;
}

/* A file that is wrong in the ways in which models and command sets are alike, given to either function. */
static kouling_status open_as(const kouling_model *model, const void *bytes, size_t size) {
    kouling_model opened = {&opened};
    kouling_commands set = {&set};
    const kouling_status status = model ? kouling_commands_open(&set, model, bytes, size) : kouling_model_open(&opened, bytes, size);
    CHECK((model ? set.data : opened.data) == (status == KOULING_OK ? bytes : NULL));
    return status;
}

static void open_change(const kouling_model *model, content from, size_t at, uint32_t value, int mend, kouling_status expected) {
    const content wrong = changed(from, at, value, mend);
    expect(open_as(model, wrong.bytes, wrong.size), expected, "opening a changed file", (int)at);
    free(wrong.bytes);
}

static void open_wrongly(const kouling_model *model, content from) {
    const kouling_status not_one = model ? KOULING_NO_COMMANDS : KOULING_NO_MODEL;
    EXPECT(open_as(model, NULL, from.size), NULL);
    EXPECT(open_as(model, NULL, 0), NULL);
    for (size_t size = 0; size < from.size; size += size < 160 ? 1 : 97) {
        const content cut = copy_of(from, size);
        expect(open_as(model, cut.bytes, size), size < 8 ? not_one : KOULING_TRUNCATED, "opening a cut file", (int)size);
        free(cut.bytes);
    }
    content moved = copy_of(from, from.size + 8);
    for (size_t by = 1; by <= 8; by++) {
        memmove(moved.bytes + by, from.bytes, from.size);
        EXPECT(open_as(model, moved.bytes + by, from.size), MISALIGNED);
    }
    free(moved.bytes);
    open_change(model, from, 0, 0x4e554f4b, 1, not_one);
    open_change(model, from, 4, 0x00475557, 1, not_one);
    open_change(model, from, 8, (model ? COMMANDS_VERSION : MODEL_VERSION) + 1, 1, KOULING_NEWER);
    open_change(model, from, 8, UINT32_MAX, 0, KOULING_NEWER); /* whose checksum may be another */
    open_change(model, from, 8, 0, 1, KOULING_CORRUPT);
    open_change(model, from, 12, 127, 1, KOULING_CORRUPT);
    open_change(model, from, 12, (uint32_t)from.size - 64, 0, KOULING_CORRUPT);
    open_change(model, from, 12, UINT32_MAX, 1, KOULING_TRUNCATED);
    for (size_t at = 16; at < from.size - 4; at += at < 128 ? 4 : 401) {
        uint32_t before;
        memcpy(&before, from.bytes + at, sizeof before);
        open_change(model, from, at, before ^ 0x01010101, 0, KOULING_CORRUPT);
    }
    EXPECT(open_as(model, from.bytes, SIZE_MAX), NOT_ALLOWED); /* -1 as a size: what reading a file gives that is not there */
    EXPECT(open_as(model, from.bytes, MOST_BYTES + 1), NOT_ALLOWED);
    EXPECT(open_as(model, from.bytes, MOST_BYTES), OK); /* more than the file has is none of its business */
}

static void models(content from) {
    kouling_model model = {NULL};
    const char *text;
    size_t bytes;
    uint32_t mels, step, units;
    open_wrongly(NULL, from);
    for (size_t at = 20; at < 112; at += 4) { /* every field of the shape and the layout */
        if (at == offsetof(model_header, log_floor)) continue; /* may be any number */
        open_change(NULL, from, at, 0xfffffff3, 1, KOULING_CORRUPT);
    }
    const size_t layers_at = sizeof(model_header), layers = ((const model_header *)(const void *)from.bytes)->layers;
    for (size_t at = layers_at; at < layers_at + layers * sizeof(layer_shape); at += 4) {
        open_change(NULL, from, at, 0, 1, KOULING_CORRUPT);
        open_change(NULL, from, at, 0xfffffff0, 1, KOULING_CORRUPT);
        open_change(NULL, from, at, 32, 1, KOULING_CORRUPT); /* allowed, but other weights lie there */
    }
    open_change(NULL, from, 8, MODEL_OLDEST - 1, 1, KOULING_OLDER);
    open_change(NULL, from, 8, 1, 0, KOULING_OLDER); /* whose checksum is none of its business */
    open_change(NULL, from, 124, NORM_BATCH, 1, KOULING_CORRUPT); /* of a version that knew none */
    EXPECT(kouling_model_open(NULL, from.bytes, from.size), NULL);
    EXPECT(kouling_model_text(&model, &text, &bytes), NULL); /* not opened */
    EXPECT(kouling_shape(&model, &mels, &step, &units), NULL);
    EXPECT(kouling_model_open(&model, from.bytes, from.size), OK);
    EXPECT(kouling_model_text(NULL, &text, &bytes), NULL);
    EXPECT(kouling_model_text(&model, NULL, &bytes), NULL);
    EXPECT(kouling_model_text(&model, &text, NULL), NULL);
    EXPECT(kouling_model_text(&model, &text, &bytes), OK);
    CHECK(bytes > 2 && text[0] == '{' && text[bytes - 1] == '}');
    EXPECT(kouling_shape(NULL, &mels, &step, &units), NULL);
    EXPECT(kouling_shape(&model, NULL, &step, &units), NULL);
    EXPECT(kouling_shape(&model, &mels, NULL, &units), NULL);
    EXPECT(kouling_shape(&model, &mels, &step, NULL), NULL);
}

static void command_sets(const kouling_model *model, content from) {
    const kouling_model unopened = {NULL};
    kouling_commands set = {&set};
    open_wrongly(model, from);
    for (size_t at = 20; at < 56; at += 4) open_change(model, from, at, 0xfffffff3, 1, KOULING_CORRUPT);
    open_change(model, from, UNITS_OF_SET, 6, 1, KOULING_UNFIT);
    EXPECT(kouling_commands_open(NULL, model, from.bytes, from.size), NULL);
    EXPECT(kouling_commands_open(&set, NULL, from.bytes, from.size), NULL);
    CHECK(!set.data);
    set.data = &set;
    EXPECT(kouling_commands_open(&set, &unopened, from.bytes, from.size), NULL);
    CHECK(!set.data);
}

/* A set with graphs: every count and every index of them. */
static void graphs(const kouling_model *model, content from) {
    command_set set;
    kouling_commands opened;
    EXPECT(kouling_commands_open(&opened, model, from.bytes, from.size), OK);
    EXPECT(commands_read(&set, from.bytes), OK);
    const graph *g = &set.graph;
    const uint32_t at = set.header->graph_at, wrong_at[] = {1, 64, 96, at + 64, (uint32_t)from.size, 0xffffffc0};
    CHECK(g->header && g->header->slots);
    for (size_t i = 0; i < sizeof wrong_at / sizeof *wrong_at; i++)
        open_change(model, from, offsetof(commands_header, graph_at), wrong_at[i], 1, KOULING_CORRUPT);
    for (size_t field = 0; field < 16; field += 4) open_change(model, from, at + field, 0xfffffff3, 1, KOULING_CORRUPT);
    open_change(model, from, at + offsetof(graph_header, fillers) + 4, 0x7ff80000, 1, KOULING_CORRUPT); /* no number */
    const void *const indices[] = {g->unit, g->command, g->slot, g->adds, g->before_at, g->before, g->piece_at, g->name_at};
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++)
        open_change(model, from, (size_t)((const uint8_t *)indices[i] - from.bytes), 0x7fffffff, 1, KOULING_CORRUPT);
}

static void messages(void) {
    const char *unknown = kouling_message((kouling_status)(KOULING_NOT_ALLOWED + 1));
    for (int status = KOULING_OK; status <= KOULING_NOT_ALLOWED; status++) {
        CHECK(strcmp(kouling_message((kouling_status)status), unknown));
        for (int other = KOULING_OK; other < status; other++)
            CHECK(strcmp(kouling_message((kouling_status)status), kouling_message((kouling_status)other)));
    }
    CHECK(!strcmp(kouling_message((kouling_status)-1), unknown));
}

/* A command set that hears something all the time. */
static content eager(content from) {
    const content copy = copy_of(from, from.size);
    commands_header *header = (commands_header *)(void *)copy.bytes;
    command_set set;
    EXPECT(commands_read(&set, copy.bytes), OK);
    for (uint32_t c = 0; c < header->commands; c++) ((double *)(void *)(copy.bytes + ((const uint8_t *)set.threshold - copy.bytes)))[c] = -1.0;
    header->refractory = 0.0, header->hesitation = header->isolation = 0, header->settle = 1;
    return changed(copy, UNITS_OF_SET, header->units, 1);
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const content file = read_file(argv[1]), set_file = read_file(argv[2]), slots_file = read_file(argv[3]), other_file = with_one_unit_more(file);
    const content eager_file = eager(set_file);
    kouling_model model, other;
    kouling_commands set, eager_set;
    messages();
    models(file);
    EXPECT(kouling_model_open(&model, file.bytes, file.size), OK);
    EXPECT(kouling_model_open(&other, other_file.bytes, other_file.size), OK);
    command_sets(&model, set_file);
    graphs(&model, slots_file);
    EXPECT(kouling_commands_open(&set, &model, set_file.bytes, set_file.size), OK);
    EXPECT(kouling_commands_open(&eager_set, &model, eager_file.bytes, eager_file.size), OK);
    streams_that_are_none(&model, &set, &other);
    streams(&model);
    more_events_than_fit(&model, &eager_set);
    return failures != 0;
}
