/* What misuse.c and misuse_streams.c share. */
#ifndef KOULING_MISUSE_H
#define KOULING_MISUSE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decoder.h"
#include "kouling.h"
#include "model.h"

extern int failures;

void expect(kouling_status found, kouling_status expected, const char *call, int line);
#define EXPECT(call, status) expect(call, KOULING_##status, #call, __LINE__)
#define CHECK(what) ((what) ? (void)0 : (failures++, (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what)))

uint8_t *aligned(size_t size);

void streams_that_are_none(const kouling_model *model, const kouling_commands *set, const kouling_model *other);
void streams(const kouling_model *model);
/* A command set that hears something all the time. */
void more_events_than_fit(const kouling_model *model, const kouling_commands *set);

#endif
