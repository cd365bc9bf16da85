/* What the programs of the benchmark have in common: files, the clock, and giving up. */
#ifndef INPUTS_H
#define INPUTS_H

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(2);
}

/* A file where it lies: its pages are the system's, not this process's own. `bytes` is its size. */
static const void *map_file(const char *path, size_t *bytes) {
    struct stat found;
    const int file = open(path, O_RDONLY);
    if (file < 0 || fstat(file, &found)) fail(path);
    *bytes = (size_t)found.st_size;
    const void *data = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, file, 0);
    if (data == MAP_FAILED) fail(path);
    close(file);
    return data;
}

static long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

#endif
