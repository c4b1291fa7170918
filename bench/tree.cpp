// The tree beside std::unordered_map<std::string, Value>: look-ups, creates, sets, memory.
//
//   tree            1,000,000 nodes in 1,000 directories, seven repeats
//   tree --quick    50,000 nodes, three repeats: that it runs, not how fast
//
// Overlapping look-ups are independent of one another, so the processor waits for several at a
// time; in dependent ones the place of the next path comes out of the node found before. Paths are
// asked for in an order that has nothing to do with where their nodes lie.
#include "coord.hpp"
#include "measure.hpp"

#include <unordered_map>

namespace {

constexpr std::size_t data_bytes = 128;

struct Value {
    std::string data;
    coord::Stat stat;
};

using Reference = std::unordered_map<std::string, Value>;

struct Workload {
    std::vector<std::string> directories;
    std::vector<std::string> paths;     // in the order of creation
    std::vector<std::string> shuffled;  // in the order of look-ups
    std::size_t path_bytes = 0;         // of directories and paths
};

void shuffle(std::vector<std::string>& strings, coord::Rng& rng) {
    for (std::size_t i = strings.size(); i > 1; i--) strings[i - 1].swap(strings[rng.below(i)]);
}

Workload make_workload(std::size_t nodes, std::size_t directories) {
    Workload load;
    char text[64];
    for (std::size_t d = 0; d < directories; d++) {
        std::snprintf(text, sizeof text, "/service-%04zu", d);
        load.directories.push_back(text);
        load.path_bytes += std::strlen(text);
        for (std::size_t i = 0; i < nodes / directories; i++) {
            std::snprintf(text, sizeof text, "/service-%04zu/node-%08zu", d, i);
            load.paths.push_back(text);
            load.path_bytes += std::strlen(text);
        }
    }
    coord::Rng rng{1};
    shuffle(load.paths, rng);
    std::vector<std::string> order = load.paths;
    shuffle(order, rng);
    for (const std::string& path : order) load.shuffled.push_back(path);  // fresh, in order
    return load;
}

struct Results {
    measure::Spread create, set, overlapping, dependent;
    double bytes_per_node = 0;
    double allocations_per_set = 0;
    double allocations_per_varied_set = 0;
};

// What is asked of a node: one byte of its data, which is 0, and one field of its Stat.
std::uint64_t ask(const coord::Tree& tree, const std::string& path) {
    const auto found = tree.find(path);
    return static_cast<unsigned char>(found->data[0]) + found->stat.mzxid.value;
}

std::uint64_t ask(const Reference& map, const std::string& path) {
    const auto found = map.find(path);
    return static_cast<unsigned char>(found->second.data[0]) + found->second.stat.mzxid.value;
}

void create(coord::Tree& tree, const std::string& path, const std::string& data) {
    tree.create(path, data, coord::SessionId{}, coord::Zxid{}, 1);
}

void create(Reference& map, const std::string& path, const std::string& data) {
    map.emplace(path, Value{data, {}});
}

void set(coord::Tree& tree, const std::string& path, coord::BytesView data) {
    (void)tree.set(path, data, coord::any_version, coord::Zxid{}, 2);
}

void set(Reference& map, const std::string& path, coord::BytesView data) {
    Value& value = map.find(path)->second;
    value.data.assign(data);
    value.stat.version += 1;
}

template <class Store>
void fill(Store& store, const Workload& load, const std::string& data) {
    for (const std::string& path : load.directories) create(store, path, data);
    for (const std::string& path : load.paths) create(store, path, data);
}

template <class Store>
void look_up(const Store& store, const Workload& load, Results& results) {
    const std::size_t count = load.shuffled.size();
    results.overlapping.add(measure::ns_per_turn(count, [&] {
        std::uint64_t sum = 0;
        for (const std::string& path : load.shuffled) sum += ask(store, path);
        measure::keep(sum);
    }));
    results.dependent.add(measure::ns_per_turn(count, [&] {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < count; i++) sum += ask(store, load.shuffled[i + sum]);
        measure::keep(sum);
    }));
}

template <class Store>
void set_all(Store& store, const Workload& load, const std::string& data, Results& results) {
    const std::size_t count = load.shuffled.size();
    const std::uint64_t before = measure::heap.allocations;
    results.set.add(measure::ns_per_turn(count, [&] {
        for (const std::string& path : load.shuffled) set(store, path, data);
    }));
    const std::uint64_t between = measure::heap.allocations;
    coord::Rng rng{2};
    for (std::size_t i = 0; i < count; i++) {
        const coord::BytesView view{data};
        set(store, load.shuffled[rng.below(count / 100)], view.substr(rng.below(data_bytes / 4)));
    }
    const auto per_turn = static_cast<double>(count);
    results.allocations_per_set = static_cast<double>(between - before) / per_turn;
    results.allocations_per_varied_set =
        static_cast<double>(measure::heap.allocations - between) / per_turn;
}

template <class Store>
void run(const Workload& load, Results& results) {
    const std::string data(data_bytes, '\0');
    const std::uint64_t heap_before = measure::heap.bytes_in_use;
    Store store;
    const std::size_t nodes = load.directories.size() + load.paths.size();
    results.create.add(measure::ns_per_turn(nodes, [&] { fill(store, load, data); }));
    const std::uint64_t heap = measure::heap.bytes_in_use - heap_before;
    const std::uint64_t beside = heap - load.path_bytes - nodes * data_bytes;
    results.bytes_per_node = static_cast<double>(beside) / static_cast<double>(nodes);
    look_up(store, load, results);
    set_all(store, load, data, results);
}

void print_pair(const char* title, const measure::Spread& ours, const measure::Spread& theirs) {
    measure::print_head(title, "ns");
    measure::print_row("coord::Tree", ours);
    measure::print_row("std::unordered_map<std::string, Value>", theirs);
    measure::print_ratio(ours, theirs);
}

}  // namespace

int main(int argc, char** argv) {
    const bool quick = measure::is_quick(argc, argv);
    const std::size_t nodes = quick ? 50000 : 1000000;
    const int repeats = quick ? 3 : 7;
    const Workload load = make_workload(nodes, nodes / 1000);
    Results ours, theirs;
    for (int i = 0; i < repeats; i++) {
        run<coord::Tree>(load, ours);
        run<Reference>(load, theirs);
    }
    const std::uint64_t before = measure::heap.bytes_in_use;
    const coord::Tree empty;
    std::printf("%zu nodes, %zu bytes of data each, %d repeats\n", nodes, data_bytes, repeats);
    print_pair("look-up, overlapping", ours.overlapping, theirs.overlapping);
    print_pair("look-up, dependent", ours.dependent, theirs.dependent);
    print_pair("create", ours.create, theirs.create);
    print_pair("set", ours.set, theirs.set);
    std::printf("heap bytes a node beside path and data: coord %.1f, reference %.1f\n",
                ours.bytes_per_node, theirs.bytes_per_node);
    std::printf("allocations a set: of one size %.3f, of three quarters to all of it %.3f\n",
                ours.allocations_per_set, ours.allocations_per_varied_set);
    std::printf("an empty tree: %zu bytes and %llu on the heap\n", sizeof empty,
                static_cast<unsigned long long>(measure::heap.bytes_in_use - before));
    return 0;
}
