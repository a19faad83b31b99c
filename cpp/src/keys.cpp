#include "keys.hpp"

namespace repro_audit {

KeyTable::KeyTable(u64 key) : base(key_base(key)) {
  for (u32 lane = 0; lane < 2; ++lane) {
    for (u64 j = 0; j < kBlockWords; ++j) {
      word[lane][j] = word_key(base, lane, j);
      (j % 2 == 0 ? even : odd)[lane][j / 2] = word[lane][j];
    }
  }
}

const KeyTable& default_keys() {
  static const KeyTable table(0);
  return table;
}

}  // namespace repro_audit
