// The contract of storages, as scripts that are run on any of them and compared with a plain model.
// A storage may make things durable behind the caller's back, and put a read off.
#ifndef COORD_TESTS_STORAGE_CONTRACT_HPP
#define COORD_TESTS_STORAGE_CONTRACT_HPP

#include <doctest/doctest.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <thread>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace support {

constexpr coord::StorageOwner owner{7, 12345};

// Asks again and again for what another thread brings about. RETURNS false only where that thread
// hangs: after half a minute of asking.
template <class Condition>
bool comes_true(Condition condition) {
    for (int i = 0; i < 60000; i++) {
        if (condition()) return true;
        if (i < 1000) {
            std::this_thread::yield();
        } else {
            std::this_thread::sleep_for(std::chrono::microseconds(500));
        }
    }
    return condition();
}

// Reads, however often it is told: not now.
inline coord::Errc read(coord::Storage& storage, coord::Sequence snapshot, std::uint64_t offset,
                        std::size_t size, coord::Bytes& out) {
    coord::Errc error = coord::Errc::ok;
    REQUIRE(comes_true([&] {
        error = storage.read_snapshot(snapshot, offset, size, out);
        return error != coord::Errc::throttled_op;
    }));
    return error;
}

// Until all that was flushed is durable, or will not be.
inline coord::Errc settle(coord::Storage& storage) {
    const coord::Sequence flushed = storage.appended();
    REQUIRE(comes_true([&] {
        return storage.durable() >= flushed || storage.health() != coord::Errc::ok;
    }));
    return storage.durable() >= flushed ? coord::Errc::ok : storage.health();
}

struct Recovered final : coord::RecoverySink {
    std::vector<std::string> lines;
    coord::Sequence snapshot = 0;
    std::uint64_t size = 0;
    void on_record(coord::Sequence sequence, coord::BytesView record) override {
        lines.push_back(std::to_string(sequence) + " " + coord::Bytes(record));
    }
    void on_snapshot(coord::Sequence sequence, coord::BytesView, std::uint64_t bytes) override {
        lines.push_back("");
        snapshot = sequence, size = bytes;
    }
};

// What open tells: "1 text" for a record, "2 [text]" for a snapshot, of which all is read.
inline std::vector<std::string> lines_of(coord::Storage& storage, Recovered& heard) {
    std::vector<std::string> lines = heard.lines;
    for (std::string& line : lines) {
        if (!line.empty()) continue;
        coord::Bytes bytes;
        const auto size = static_cast<std::size_t>(heard.size) + 1;
        REQUIRE(storage.read_snapshot(heard.snapshot, 0, size, bytes) == coord::Errc::ok);
        REQUIRE(bytes.size() + 1 == size);
        line = std::to_string(heard.snapshot) + " [" + bytes + "]";
    }
    return lines;
}

struct Item {
    bool is_snapshot = false;
    std::string text;
    coord::Sequence first_needed = 0;
    bool replaces = false;
};

// What was appended, and how much of it must survive.
struct Model {
    std::vector<Item> items;       // of sequence 1 on
    coord::Sequence durable = 0;

    // What an undamaged storage hands over that ends with `last`.
    std::vector<std::string> lines(coord::Sequence last) const {
        coord::Sequence newest = 0;
        for (coord::Sequence s = 1; s <= last; s++) newest = items[s - 1].is_snapshot ? s : newest;
        return lines_from(newest, last);
    }
    std::vector<std::string> lines_from(coord::Sequence snapshot, coord::Sequence last) const {
        std::vector<std::string> out;
        coord::Sequence s = snapshot == 0 ? 1 : items[snapshot - 1].first_needed;
        for (; s <= last; s++) {
            const Item& item = items[s - 1];
            if (!item.is_snapshot) out.push_back(std::to_string(s) + " " + item.text);
            if (s == snapshot) out.push_back(std::to_string(s) + " [" + item.text + "]");
        }
        return out;
    }
};

// a append, A append a long one, f flush and wait, F flush; a snapshot of all that is before it: s;
// one that needs the record before it too: n; one that replaces: r; one that is begun and left: b.
// RETURNS the first error, and stops there.
inline coord::Errc run(coord::Storage& storage, Model& model, const std::string& script) {
    using coord::Errc;
    for (const char step : script) {
        const coord::Sequence next = storage.appended() + 1;
        std::string text = std::string(1, step) + std::to_string(next);
        Errc error = Errc::ok;
        if (step == 'f' || step == 'F') {
            error = storage.flush();
            if (error == Errc::ok && step == 'f') error = settle(storage);
        } else if (step == 'a' || step == 'A') {
            if (step == 'A') text.append(700, '+');
            error = storage.append(text);
            if (error == Errc::ok) model.items.push_back({false, text, 0, false});
        } else {
            const coord::Sequence needed = step == 'n' && next > 1 ? next - 1 : next;
            text += " is a snapshot";
            error = storage.begin_snapshot();
            if (error == Errc::ok) error = storage.write_snapshot(text.substr(0, 3));
            if (error == Errc::ok) error = storage.write_snapshot(text.substr(3));
            if (error == Errc::ok && step != 'b') error = storage.end_snapshot(needed, step == 'r');
            if (error == Errc::ok && step != 'b') {
                model.items.push_back({true, text, needed, step == 'r'});
            }
        }
        const coord::Sequence durable = storage.durable();
        REQUIRE(storage.appended() == model.items.size());
        REQUIRE(durable >= model.durable);
        REQUIRE(durable <= storage.appended());
        model.durable = durable;
        if (error != Errc::ok) return error;
        if (step == 'f') REQUIRE(model.durable == storage.appended());
    }
    return Errc::ok;
}

// Opens, expects all that was durable and nothing that was not appended, and cuts the model to it.
inline void recover(coord::Storage& storage, Model& model) {
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == coord::Errc::ok);
    const coord::Sequence last = storage.appended();
    REQUIRE(storage.durable() == last);
    REQUIRE(last >= model.durable);
    REQUIRE(last <= model.items.size());
    REQUIRE(lines_of(storage, heard) == model.lines(last));
    model.items.resize(static_cast<std::size_t>(last)), model.durable = last;
}

constexpr const char* contract_scripts[] = {
    "", "f", "a", "af", "afa", "aafasfaf", "sf", "s", "afb", "afbaf", "asfanfarfaf",
    "bsfbaf", "afsnrfaA", "AAAfAAAf", "asfasfasfasfasfasf", "aaaarf", "aFaFsFaFf"};

// A new storage, run, reopened, run again.
inline void expect_contract(coord::Storage& storage, const char* script) {
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == coord::Errc::ok);
    CHECK(heard.lines.empty());
    CHECK(storage.appended() == 0);
    const std::uint64_t id = storage.id();
    CHECK(id != 0);
    Model model;
    REQUIRE(run(storage, model, script) == coord::Errc::ok);
    CHECK(storage.health() == coord::Errc::ok);
    CHECK(storage.has_room());
    recover(storage, model);
    REQUIRE(run(storage, model, "aafsaf") == coord::Errc::ok);
    recover(storage, model);
    CHECK(model.durable == model.items.size());
    CHECK(storage.id() == id);
}

inline void expect_begun_can_be_read(coord::Storage& storage) {
    using coord::Errc;
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot("given up") == Errc::ok);
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    const coord::Bytes large(200000, 'x');
    REQUIRE(storage.write_snapshot("abc") == Errc::ok);
    coord::Bytes bytes;
    REQUIRE(read(storage, 0, 1, 10, bytes) == Errc::ok);
    CHECK(bytes == "bc");
    REQUIRE(storage.write_snapshot(large) == Errc::ok);
    REQUIRE(storage.write_snapshot("yz") == Errc::ok);
    REQUIRE(storage.end_snapshot(1, false) == Errc::ok);
    bytes.clear();
    REQUIRE(read(storage, 1, 200002, 10, bytes) == Errc::ok);
    CHECK(bytes == "xyz");
    REQUIRE(read(storage, 1, 200005, 10, bytes) == Errc::ok);
    CHECK(bytes == "xyz");
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(settle(storage) == Errc::ok);
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    CHECK(heard.size == 200005);
    bytes.clear();
    REQUIRE(storage.read_snapshot(1, 2, 2, bytes) == Errc::ok);
    CHECK(bytes == "cx");
}

}  // namespace support

#endif
