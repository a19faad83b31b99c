// Where launches go, how large they are, and what is refused, on emulated devices.
#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../src/grid.hpp"
#include "../src/pieces.hpp"
#include "check.hpp"
#include "machine.hpp"

namespace {

using namespace repro_audit;
using cuda::Queue;
using emulated::Call;
using emulated::machine;

constexpr int kDevices = 80;

u64 address(const void* p) { return reinterpret_cast<u64>(p); }

// What an act is refused with, of a type.
template <class Error, class Act>
std::string refusal(Act&& act) {
  try {
    act();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// Memory for all launches, and each of them.
struct Launches {
  std::vector<u64> memory = std::vector<u64>(4000);
  std::vector<u64> out = std::vector<u64>(4000);

  u64 from() const { return address(memory.data()); }
  u64 to() const { return address(out.data()); }
  Strided turned() const {
    return {reinterpret_cast<const u8*>(memory.data()), {5, 30}, {1, 5}, 8};
  }

  void range(Queue queue) const { cuda::add_range(from(), 900, 0, 0, to(), queue); }
  void strided(Queue queue) const { cuda::add_strided(turned(), 0, to(), queue); }
  void multiset(Queue queue) const { cuda::add_multiset(turned(), 0, to(), queue); }
  void table(Queue queue) const {
    cuda::add_table({{from(), 10, 0}, {from(), 20, 0}}, 0, to(), queue);
  }
  void sample(Queue queue) const { cuda::sample(turned(), 3, to(), queue); }
  void compare(Queue queue) const { cuda::compare(Tag::float32, from(), to(), 10, to(), queue); }

  template <class Use>
  void each(Use&& use) const {
    use(&Launches::range, "the digest's kernel");
    use(&Launches::strided, "the strided digest's kernel");
    use(&Launches::multiset, "the multiset digest's kernel");
    use(&Launches::table, "the table's kernel");
    use(&Launches::sample, "the kernel that samples");
    use(&Launches::compare, "the kernel of ULP divergence");
  }
};

// The device asked for is used, and the one before is current again, whatever happens.
void devices(const Launches& launches) {
  machine().current = 1;
  const cudaStream_t stream = static_cast<cudaStream_t>(cuda::make_stream(3));
  CHECK(machine().current == 1);
  launches.each([&](auto launch, const std::string& what) {
    for (const int current : {1, 3}) {
      machine().current = current;
      machine().launches.clear();
      (launches.*launch)({3, stream});
      (launches.*launch)({2, nullptr});
      emulated::synchronize();
      CHECK(machine().current == current);
      const auto& found = machine().launches;
      CHECK(found.size() == 2 && found[0].device == 3 && found[0].stream == stream);
      CHECK(found.size() == 2 && found[1].device == 2 && found[1].stream == nullptr);
    }
    machine().current = 1;
    const auto refused = [&](Queue queue) {
      const std::string words = refusal<std::runtime_error>([&] { (launches.*launch)(queue); });
      CHECK(machine().current == 1);
      return words;
    };
    machine().launches.clear();
    CHECK(refused({2, stream}) == what + ": invalid resource handle");
    CHECK(refused({kDevices, nullptr}) == "cudaSetDevice: invalid device ordinal");
    CHECK(refused({-1, nullptr}) == "cudaSetDevice: invalid device ordinal");
    machine().error = cudaErrorLaunchOutOfResources;
    const std::string because = ": too many resources requested for launch";
    machine().failing = Call::launch;
    CHECK(refused({2, nullptr}) == what + because);
    CHECK(refused({1, nullptr}) == what + because);
    machine().failing = Call::set_device;
    CHECK(refused({2, nullptr}) == "cudaSetDevice" + because);
    CHECK(refused({1, nullptr}).empty());
    machine().failing = Call::get_device;
    CHECK(refused({2, nullptr}) == "cudaGetDevice" + because);
    machine().failing = Call::get_attribute;
    CHECK(refused({kDevices - 1, nullptr}) == "cudaDeviceGetAttribute" + because);
    machine().failing = Call::none;
    CHECK(machine().launches.size() == 1);
    emulated::synchronize();
  });
  machine().failing = Call::create_stream;
  CHECK(refusal<std::runtime_error>([] { cuda::make_stream(2); }) ==
        "cudaStreamCreateWithFlags: too many resources requested for launch");
  machine().failing = Call::none;
  CHECK(machine().current == 1);
}

// After a device's kernels are loaded no digest and no sample has one to load.
void loading(const Launches& launches) {
  machine().current = 1;
  machine().loaded.clear();
  cuda::load_digests(4);
  cuda::load_samples(4);
  CHECK(machine().current == 1);
  machine().launches.clear();
  const Queue queue{4, nullptr};
  for (u64 shift = 0; shift < 16; ++shift) {
    cuda::add_range(launches.from() + shift, 100, 0, 0, launches.to(), queue);
  }
  for (const u64 item : {1, 2, 4, 8, 16}) {
    Strided view = launches.turned();
    view.itemsize = item;
    cuda::add_strided(view, 0, launches.to(), queue);
    cuda::sample(view, 3, launches.to(), queue);
    view.data += 1;
    cuda::add_strided(view, 0, launches.to(), queue);
  }
  for (const u64 rows : {1, 64, 65, 1360, 1361}) {
    cuda::add_table(std::vector<cuda::Row>(rows, {launches.from(), 1, 0}), 0, launches.to(), queue);
  }
  CHECK(machine().launches.size() == 16 + 15 + 6);
  CHECK(std::ranges::all_of(machine().launches, [](const auto& launch) { return launch.loaded; }));
  emulated::synchronize();
  machine().failing = Call::load;
  CHECK(refusal<std::runtime_error>([] { cuda::load_digests(2); }) ==
        "cudaFuncGetAttributes: too many resources requested for launch");
  machine().failing = Call::none;
  CHECK(machine().current == 1);
}

// Nothing is launched for nothing.
void nothing(const Launches& launches) {
  machine().launches.clear();
  const Queue queue{0, nullptr};
  const Strided empty{nullptr, {3, 0}, {1, 1}, 4};
  cuda::add_range(0, 0, 5, 0, launches.to(), queue);
  cuda::add_strided(empty, 0, launches.to(), queue);
  cuda::add_multiset(empty, 0, launches.to(), queue);
  cuda::add_table({}, 0, launches.to(), queue);
  cuda::add_table({{0, 0, 0}, {0, 0, 0}}, 0, launches.to(), queue);
  cuda::sample(launches.turned(), 0, launches.to(), queue);
  CHECK(!cuda::compare(Tag::complex64, launches.from(), launches.from(), 3, launches.to(), queue));
  CHECK(machine().launches.empty());
}

// Every device is asked once; those past the remembered ones each time.
void grids() {
  constexpr u64 kHuge = u64{1} << 50;
  for (const int device : {0, 1, 2, 63, 64, kDevices - 1}) {
    const auto multiprocessors =
        static_cast<unsigned>(machine().multiprocessors[static_cast<std::size_t>(device)]);
    for (int again = 0; again < 2; ++again) {
      CHECK(cuda::grid_for(kHuge, 256, 8, device) == 8 * multiprocessors);
      CHECK(cuda::grid_for(0, 256, 8, device) == 1);
      CHECK(cuda::grid_for(8, 256, 8, device) == 1);
      CHECK(cuda::grid_for(9, 256, 8, device) == 2);
      CHECK(cuda::compare_records(kHuge, device) == 16 * multiprocessors);
      CHECK(cuda::compare_records(0, device) == 1);
    }
  }
  for (const int device : {-1, kDevices}) {
    CHECK(refusal<std::runtime_error>([&] { cuda::compare_records(1, device); }) ==
          "cudaDeviceGetAttribute: invalid device ordinal");
  }
}

void unaligned(const Launches& launches) {
  const Queue queue{2, nullptr};
  Strided view = launches.turned();
  view.data += 4;
  const std::string words = "elements at unaligned addresses";
  CHECK(refusal<std::invalid_argument>([&] { cuda::sample(view, 3, launches.to(), queue); }) ==
        words);
  for (const std::pair<u64, u64> by : {std::pair{1, 0}, {0, 1}, {2, 2}}) {
    CHECK(refusal<std::invalid_argument>([&] {
            cuda::compare(Tag::int32, launches.from() + by.first, launches.from() + by.second, 5,
                          launches.to(), queue);
          }) == words);
  }
  CHECK(machine().current == 1);
}

// As many dimensions as there may be, and one more. No tensor in memory has so many that do not
// merge, so this is of pieces alone.
void dimensions(const Launches& launches) {
  Strided view = launches.turned();
  view.sizes.assign(cuda::kMaxRank - 1, 1);
  view.sizes[3] = 4;
  view.sizes.back() = 3;
  view.strides.assign(view.sizes.size(), 2);
  const auto pieces = cuda::pieces_of<4>(view);
  CHECK(pieces.rank == cuda::kMaxRank && pieces.count == 24);
  for (u64 i = 0; i < pieces.count; ++i) {
    const auto place = pieces.locate(i);
    CHECK(place.address == launches.from() + (i / 6 + i / 2 % 3) * 16 + i % 2 * 4);
    CHECK(place.left == 2 - i % 2);
  }
  view.sizes.push_back(2);
  view.strides.push_back(2);
  CHECK(refusal<std::length_error>([&] { cuda::pieces_of<4>(view); }) ==
        "a tensor of more than 64 dimensions");
}

}  // namespace

int main() {
  machine().multiprocessors.assign(kDevices, 3);
  machine().multiprocessors[0] = 1;
  machine().multiprocessors[2] = 132;
  const Launches launches;
  grids();
  devices(launches);
  loading(launches);
  nothing(launches);
  unaligned(launches);
  dimensions(launches);
  return conclude("where launches go");
}
