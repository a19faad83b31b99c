// No framework: a failed check prints its line, and the process ends with 1.
#pragma once

#include <cstdio>

inline int failures = 0;

#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) {                                            \
      ++failures;                                                  \
      std::fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
    }                                                              \
  } while (false)

inline int conclude(const char* what) {
  std::printf("%s: %s\n", what, failures == 0 ? "passed" : "FAILED");
  return failures == 0 ? 0 : 1;
}
