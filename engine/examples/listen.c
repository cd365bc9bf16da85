/* Hear commands in 16 kHz mono int16 PCM on stdin: `listen MODEL.kouling [SET.commands] < audio.pcm`. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kouling.h"

static void require(kouling_status status, const char *what) {
    if (status == KOULING_OK) return;
    fprintf(stderr, "listen: %s: %s\n", what, kouling_message(status));
    exit(2);
}

static const void *map_file(const char *path, size_t *bytes) {
    struct stat found;
    const int file = open(path, O_RDONLY);
    const void *data = MAP_FAILED;
    if (file >= 0 && fstat(file, &found) == 0 && found.st_size > 0) {
        *bytes = (size_t)found.st_size;
        data = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, file, 0);
    }
    if (file >= 0) close(file);
    if (data == MAP_FAILED) {
        perror(path);
        exit(2);
    }
    return data;
}

static void print(const kouling_event *events, size_t count) {
    for (size_t i = 0; i < count; i++)
        printf("%8.3f %8.3f  %3.0f%%  %.*s\n", events[i].start_s, events[i].end_s, 100 * (double)events[i].confidence,
               (int)events[i].name_bytes, events[i].name);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: listen MODEL.kouling [SET.commands] < audio.pcm\n");
        return 2;
    }
    size_t bytes, used, heard, size;
    kouling_model model;
    kouling_commands set, *commands = NULL;
    const void *data = map_file(argv[1], &bytes);
    require(kouling_model_open(&model, data, bytes), argv[1]);
    if (argc == 3) {
        data = map_file(argv[2], &bytes);
        require(kouling_commands_open(&set, &model, data, bytes), argv[2]);
        commands = &set;
    }
    kouling_stream *stream;
    require(kouling_stream_size(&model, commands, KOULING_LIVE, &size), argv[1]);
    void *memory = aligned_alloc(KOULING_ALIGN, (size + KOULING_ALIGN - 1) / KOULING_ALIGN * KOULING_ALIGN);
    require(kouling_stream_init(&stream, &model, commands, KOULING_LIVE, memory, size), argv[1]);
    static int16_t samples[1600];
    static kouling_event events[KOULING_MAX_EVENTS];
    for (size_t count; (count = fread(samples, sizeof *samples, 1600, stdin)) > 0;)
        for (size_t done = 0; done < count; done += used) {
            require(kouling_accept(stream, samples + done, count - done, &used, events, &heard), "stdin");
            print(events, heard);
        }
    do {
        require(kouling_finish(stream, events, &heard), "stdin");
        print(events, heard);
    } while (heard);
    free(memory);
    return 0;
}
