// Chapter 6: BackgroundStorage, before storages that are slow, full, failing or switched off.
// .ci/run also builds this file with the thread sanitizer.

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "storage_contract.hpp"
#include "support.hpp"
#ifndef COORD_NO_FILES
#include "simulated_disk.hpp"
#endif

#ifndef COORD_NO_THREADS

namespace {

using coord::BackgroundStorage;
using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::MemoryStorage;
using coord::PeerId;
using coord::Replica;
using coord::Sequence;
using coord::Storage;
using support::comes_true;
using support::Model;
using support::owner;
using support::Recovered;
using support::recover;
using support::run;
using support::settle;
using Lines = std::vector<std::string>;

// A storage in memory whose changes can be made to hang, to find no space, or to fail, and which
// writes down what it is asked for. The test may turn its knobs while another thread uses it.
class Slow final : public Storage {
public:
    std::atomic<bool> is_append_full{false}, is_piece_full{false}, is_end_full{false};
    std::atomic<bool> is_append_bad{false}, is_flush_bad{false}, is_read_bad{false};
    std::atomic<bool> is_roomless{false};
    std::atomic<std::int64_t> time_ns{-1};    // that it was told
    std::atomic<bool> has_overlapped{false};  // two calls at the same time

    // Calls that start so hang until it is opened.
    void close_gate(const std::string& calls = "") { set_gate(true, calls); }
    void open_gate() { set_gate(false, ""); }
    bool is_anybody_waiting() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return waiting_ > 0;
    }
    Lines calls() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return calls_;
    }
    Errc open(coord::RecoverySink& sink, const coord::StorageOwner& whose) override {
        return memory_.open(sink, whose);
    }
    Errc append(BytesView record) override {
        const Call call(*this, "append " + Bytes(record.substr(0, 10)));
        if (is_append_full) return Errc::storage_full;
        return is_append_bad ? Errc::storage_failed : memory_.append(record);
    }
    Errc begin_snapshot() override {
        const Call call(*this, "begin");
        return memory_.begin_snapshot();
    }
    Errc write_snapshot(BytesView piece) override {
        const Call call(*this, "write");
        return is_piece_full ? Errc::storage_full : memory_.write_snapshot(piece);
    }
    Errc end_snapshot(Sequence first_needed, bool replaces) override {
        const Call call(*this, "end");
        return is_end_full ? Errc::storage_full : memory_.end_snapshot(first_needed, replaces);
    }
    Errc read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                       Bytes& out) override {
        const Call call(*this, "read");
        if (is_read_bad) return Errc::storage_failed;
        return memory_.read_snapshot(snapshot, offset, size, out);
    }
    Errc flush() override {
        const Call call(*this, "flush");
        return is_flush_bad ? Errc::storage_failed : memory_.flush();
    }
    Sequence appended() const override { return memory_.appended(); }
    Sequence durable() const override { return memory_.durable(); }
    Errc health() const override { return memory_.health(); }
    bool has_room() const override { return !is_roomless; }
    std::uint64_t id() const override { return memory_.id(); }
    void set_time(coord::Time now) override { time_ns = now.ns; }

private:
    // Notes it, and passes the gate.
    struct Call {
        Call(Slow& slow, const std::string& text) : slow_(slow) {
            const bool is_alone = slow_.inside_.fetch_add(1) == 0;
            if (!is_alone) slow_.has_overlapped = true;
            std::unique_lock<std::mutex> lock(slow_.mutex_);
            slow_.calls_.push_back(text);
            const auto is_open = [&] {
                return !is_alone || !slow_.is_closed_ || text.find(slow_.closed_to_) != 0;
            };
            if (is_open()) return;
            slow_.waiting_ += 1;
            slow_.gate_.wait(lock, is_open);
            slow_.waiting_ -= 1;
        }
        ~Call() { slow_.inside_.fetch_sub(1); }
        Call(const Call&) = delete;
        Call& operator=(const Call&) = delete;
        Slow& slow_;
    };
    void set_gate(bool is_closed, const std::string& calls) {
        const std::lock_guard<std::mutex> lock(mutex_);
        is_closed_ = is_closed, closed_to_ = calls;
        gate_.notify_all();
    }
    MemoryStorage memory_;
    std::atomic<int> inside_{0};
    std::mutex mutex_;
    std::condition_variable gate_;
    Lines calls_;
    std::string closed_to_;
    int waiting_ = 0;
    bool is_closed_ = false;
};

void open(Storage& storage) {
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
}

Bytes read_all(Storage& storage, Sequence snapshot) {
    Bytes bytes;
    REQUIRE(support::read(storage, snapshot, 0, 1 << 20, bytes) == Errc::ok);
    return bytes;
}

}  // namespace

TEST_SUITE("06 background") {

TEST_CASE("the contract, before a storage in memory") {
    for (const char* const script : support::contract_scripts) {
        CAPTURE(script);
        MemoryStorage memory;
        BackgroundStorage storage(memory);
        support::expect_contract(storage, script);
    }
    MemoryStorage memory;
    BackgroundStorage storage(memory);
    support::expect_begun_can_be_read(storage);
}

TEST_CASE("S2 S11 a storage that hangs is waited for by nobody; order and watermark hold") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    REQUIRE(storage.append("a") == Errc::ok);
    inner.close_gate();
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(comes_true([&] { return inner.is_anybody_waiting(); }));  // in append
    REQUIRE(storage.append("b") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(storage.append("c") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(support::append_snapshot(storage, "state", 3) == Errc::ok);
    REQUIRE(storage.append("d") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(storage.append("not flushed") == Errc::ok);
    Bytes bytes = "as it was";
    CHECK(storage.read_snapshot(4, 0, 10, bytes) == Errc::throttled_op);
    CHECK(bytes == "as it was");
    CHECK(storage.appended() == 6);
    CHECK(storage.durable() == 0);
    CHECK(storage.health() == Errc::ok);
    CHECK(storage.has_room());
    CHECK(inner.calls() == Lines{"append a"});
    inner.open_gate();
    REQUIRE(comes_true([&] { return storage.durable() >= 5; }));
    CHECK(read_all(storage, 4) == "state");
    CHECK(storage.durable() == 5);  // no further than was asked for
    const Lines calls = inner.calls();
    const Lines expected{"append a", "flush", "append b", "append c", "begin", "write", "end",
                         "append d", "append not flushe", "flush"};
    REQUIRE(calls.size() >= expected.size());
    CHECK(Lines(calls.begin(), calls.begin() + 8) ==
          Lines(expected.begin(), expected.begin() + 8));
    CHECK(calls[9] == "flush");  // three of them are one
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(settle(storage) == Errc::ok);
    CHECK(storage.durable() == 6);
    CHECK_FALSE(inner.has_overlapped);
}

TEST_CASE("S2 what is being flushed is not durable, and a flush meanwhile is not forgotten") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    for (Sequence turn = 1; turn <= 20; turn++) {
        REQUIRE(storage.append("a") == Errc::ok);
        REQUIRE(storage.flush() == Errc::ok);
        REQUIRE(comes_true([&] { return storage.durable() == 2 * turn - 1; }));
        inner.close_gate("flush");
        REQUIRE(storage.flush() == Errc::ok);
        REQUIRE(comes_true([&] { return inner.is_anybody_waiting(); }));
        REQUIRE(storage.append("b") == Errc::ok);
        REQUIRE(storage.flush() == Errc::ok);
        CHECK(storage.durable() == 2 * turn - 1);
        inner.open_gate();
        REQUIRE(comes_true([&] { return storage.durable() == 2 * turn; }));
    }
}

TEST_CASE("S2 durable() moves when the flush behind has returned, and the loop is woken") {
    Slow inner;
    std::atomic<int> woken{0};
    BackgroundStorage storage(inner, [&woken] { woken += 1; });
    open(storage);
    REQUIRE(storage.append("a") == Errc::ok);
    CHECK(woken == 0);
    inner.close_gate("flush");
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(comes_true([&] { return inner.is_anybody_waiting(); }));
    CHECK(inner.calls() == Lines{"append a", "flush"});
    const coord::Sequence meanwhile = storage.durable();
    CHECK(woken == 0);
    inner.open_gate();  // before a check that ends this: the thread is waited for then
    REQUIRE(meanwhile == 0);
    REQUIRE(comes_true([&] { return woken > 0; }));
    CHECK(storage.durable() == 1);
}

TEST_CASE("the storage behind is told the time at which a flush was asked for, before it") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    inner.close_gate("flush");
    storage.set_time(coord::Time{5});
    REQUIRE(storage.append("a") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(comes_true([&] { return inner.is_anybody_waiting(); }));
    CHECK(inner.time_ns == 5);
    storage.set_time(coord::Time{6});
    REQUIRE(storage.append("b") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    storage.set_time(coord::Time{7});
    CHECK(inner.time_ns == 5);
    inner.open_gate();
    REQUIRE(settle(storage) == Errc::ok);
    CHECK(inner.time_ns == 6);
}

TEST_CASE("a read that was put off is of what was written before it, and never of what is gone") {
    Slow inner;
    std::atomic<int> woken{0};
    BackgroundStorage storage(inner, [&woken] { woken += 1; });
    open(storage);
    REQUIRE(support::append_snapshot(storage, "first", 1) == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(settle(storage) == Errc::ok);
    CHECK(read_all(storage, 1) == "first");
    inner.close_gate();
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot("abc") == Errc::ok);
    Bytes bytes;
    CHECK(storage.read_snapshot(1, 0, 10, bytes) == Errc::throttled_op);
    CHECK(storage.read_snapshot(0, 0, 10, bytes) == Errc::throttled_op);
    REQUIRE(storage.write_snapshot("def") == Errc::ok);
    CHECK(storage.read_snapshot(0, 0, 10, bytes) == Errc::throttled_op);
    REQUIRE(storage.write_snapshot("ghi") == Errc::ok);
    inner.open_gate();
    CHECK(read_all(storage, 0) == "abcdefghi");
    CHECK(read_all(storage, 1) == "first");
    // An answer for one is none for another, nor for the same when there is more of it.
    inner.close_gate();
    REQUIRE(storage.write_snapshot("jkl") == Errc::ok);
    CHECK(storage.read_snapshot(0, 9, 10, bytes) == Errc::throttled_op);
    const int before = woken;
    inner.open_gate();
    REQUIRE(comes_true([&] { return woken > before; }));  // the answer is there
    REQUIRE(support::read(storage, 0, 10, 10, bytes) == Errc::ok);
    CHECK(bytes == "kl");
    REQUIRE(storage.write_snapshot("mno") == Errc::ok);
    bytes.clear();
    REQUIRE(support::read(storage, 0, 9, 10, bytes) == Errc::ok);
    CHECK(bytes == "jklmno");
    inner.close_gate();
    REQUIRE(storage.append("x") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    CHECK(storage.read_snapshot(1, 0, 10, bytes) == Errc::throttled_op);
    REQUIRE(storage.end_snapshot(3, false) == Errc::ok);  // the one asked for may be gone by then
    inner.open_gate();
    CHECK(read_all(storage, 3) == "abcdefghijklmno");
    CHECK_FALSE(inner.has_overlapped);
}

// 2 MB in pieces of 96 kB, as a replica reads what it has written, from beginning to end or from
// anywhere: what the thread has read ahead is what is asked for, or is not given.
TEST_CASE("what follows a read is read with it, and is the same") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    Bytes state;
    coord::Rng rng{support::seed_or(6)};
    while (state.size() < 2000000) state.push_back(static_cast<char>(rng.next()));
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot(state) == Errc::ok);
    constexpr std::size_t size = 96 * 1024;
    std::size_t asked = 0, put_off = 0, jumps = 0;
    for (std::size_t offset = 0; offset <= state.size(); offset += size) {
        Bytes bytes;
        REQUIRE(comes_true([&] {
            REQUIRE(storage.append("more") == Errc::ok);
            REQUIRE(storage.flush() == Errc::ok);  // it is never idle when it is asked
            const Errc error = storage.read_snapshot(0, offset, size, bytes);
            asked += 1, put_off += error == Errc::throttled_op ? 1 : 0;
            return error == Errc::ok;
        }));
        REQUIRE(bytes == state.substr(offset, size));
        if (jumps < 40 && rng.chance(200)) jumps += 1, offset = rng.below(state.size());
    }
    CHECK(asked > put_off);
    CHECK_FALSE(inner.has_overlapped);
    REQUIRE(storage.write_snapshot("tail") == Errc::ok);  // it is longer than what was read ahead
    Bytes end;
    REQUIRE(support::read(storage, 0, state.size() - 3, 100, end) == Errc::ok);
    CHECK(end == state.substr(state.size() - 3) + "tail");
}

TEST_CASE("pieces that follow each other come out of one look of the thread") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    const Bytes state(300000, 's');
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot(state) == Errc::ok);
    Bytes bytes;
    inner.close_gate();
    REQUIRE(storage.append("x") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    CHECK(storage.read_snapshot(0, 0, 1000, bytes) == Errc::throttled_op);
    inner.open_gate();
    REQUIRE(comes_true([&] { return storage.read_snapshot(0, 0, 1000, bytes) == Errc::ok; }));
    inner.close_gate();
    REQUIRE(storage.append("y") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    int put_off = 0;  // while it is busy
    for (std::size_t offset = 1000; offset < state.size(); offset += 1000) {
        put_off += storage.read_snapshot(0, offset, 1000, bytes) == Errc::ok ? 0 : 1;
    }
    inner.open_gate();
    CHECK(put_off == 0);
    CHECK(bytes == state);
}

TEST_CASE("a thread that has much of a snapshot to write says so, and takes it all the same") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    CHECK(storage.write_snapshot({}) == Errc::ok);
    REQUIRE(storage.append("x") == Errc::ok);
    inner.close_gate();
    REQUIRE(storage.flush() == Errc::ok);
    const Bytes piece(300000, 'p');
    int pieces = 0;
    for (; pieces < 10 && storage.write_snapshot({}) == Errc::ok; pieces++) {
        CHECK(storage.write_snapshot(piece) == Errc::ok);
    }
    CHECK(storage.write_snapshot(piece) == Errc::ok);
    inner.open_gate();  // before what may end the test: the thread waits for it
    CHECK(pieces >= 4);
    REQUIRE(pieces < 10);
    REQUIRE(comes_true([&] { return storage.write_snapshot({}) == Errc::ok; }));
    Bytes all;
    REQUIRE(support::read(storage, 0, 0, 1 << 24, all) == Errc::ok);
    CHECK(all.size() == 300000 * static_cast<std::size_t>(pieces + 1));
}

TEST_CASE("a learner's reads get their turn however busy the thread is") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    REQUIRE(support::append_snapshot(storage, "state", 1) == Errc::ok);
    Bytes bytes;
    REQUIRE(comes_true([&] {
        REQUIRE(storage.append("more") == Errc::ok);
        REQUIRE(storage.flush() == Errc::ok);  // so that it is never idle when it is asked
        return storage.read_snapshot(1, 0, 10, bytes) == Errc::ok;
    }));
    CHECK(bytes == "state");
    CHECK_FALSE(inner.has_overlapped);
}

TEST_CASE("a queue that is full waits for the thread, and keeps the order") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    const Bytes large(1 << 20, 'x');
    inner.close_gate();
    REQUIRE(storage.append("first") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(comes_true([&] { return inner.is_anybody_waiting(); }));
    std::atomic<int> done{0};
    std::thread opener([&] {
        comes_true([&] { return done >= 15; });  // so many fit without any wait
        inner.open_gate();
    });
    for (int i = 0; i < 24; i++) {
        REQUIRE(storage.append(std::to_string(i) + "_" + large) == Errc::ok);
        done += 1;
    }
    opener.join();
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot(Bytes(24 << 20, 'y')) == Errc::ok);
    REQUIRE(storage.end_snapshot(26, true) == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(settle(storage) == Errc::ok);
    Lines appends;
    for (const std::string& call : inner.calls()) {
        if (call.substr(0, 6) == "append") appends.push_back(call.substr(7, call.find('_') - 7));
    }
    REQUIRE(appends.size() == 25);
    for (std::size_t i = 0; i < 24; i++) CHECK(appends[i + 1] == std::to_string(i));
    Bytes end;
    REQUIRE(support::read(storage, 26, (24 << 20) - 2, 100, end) == Errc::ok);
    CHECK(end == "yy");
}

TEST_CASE("no space for a record: it waits with all that is behind it, and nothing is swapped") {
    Slow inner;
    BackgroundStorage storage(inner);
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    Model model;
    REQUIRE(run(storage, model, "aaf") == Errc::ok);
    inner.is_append_full = true;
    inner.close_gate();
    REQUIRE(run(storage, model, "aF") == Errc::ok);
    REQUIRE(comes_true([&] { return inner.is_anybody_waiting(); }));
    REQUIRE(run(storage, model, "asaF") == Errc::ok);  // accepted, before it is known
    inner.open_gate();
    REQUIRE(comes_true([&] { return !storage.has_room(); }));
    CHECK(storage.health() == Errc::ok);
    CHECK(storage.durable() == 2);
    CHECK(storage.append("refused") == Errc::storage_full);
    CHECK(storage.begin_snapshot() == Errc::storage_full);
    CHECK(storage.write_snapshot("refused") == Errc::storage_full);
    CHECK(storage.end_snapshot(1, false) == Errc::storage_full);
    Bytes bytes;
    CHECK(storage.read_snapshot(0, 0, 10, bytes) == Errc::storage_full);
    CHECK(storage.flush() == Errc::ok);
    CHECK(storage.appended() == 6);
    inner.is_append_full = false;
    REQUIRE(comes_true([&] { return storage.append("a7") == Errc::ok; }));  // each of them tries
    model.items.push_back({false, "a7", 0, false});
    REQUIRE(run(storage, model, "f") == Errc::ok);
    CHECK(storage.has_room());
    REQUIRE(run(storage, model, "saf") == Errc::ok);
    recover(storage, model);
    CHECK(model.durable == 9);
}

TEST_CASE("no space for a record: what was flushed is durable without another flush") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    inner.is_append_full = true;
    REQUIRE(storage.append("a") == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(comes_true([&] { return !storage.has_room(); }));
    inner.is_append_full = false;
    REQUIRE(comes_true([&] { return storage.append("b") == Errc::ok; }));
    REQUIRE(comes_true([&] { return storage.durable() == 1; }));
}

TEST_CASE("no space for a snapshot: a later call of the same one says so, and the next is sound") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    inner.is_piece_full = true;
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(comes_true([&] { return storage.write_snapshot("abc") == Errc::storage_full; }));
    CHECK(storage.write_snapshot("abc") == Errc::storage_full);
    CHECK(storage.end_snapshot(1, false) == Errc::storage_full);
    Bytes bytes;
    CHECK(storage.read_snapshot(0, 0, 10, bytes) == Errc::storage_full);
    CHECK(storage.appended() == 0);
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot("abc") == Errc::ok);
    CHECK(support::read(storage, 0, 0, 10, bytes) == Errc::storage_full);
    inner.is_piece_full = false;
    REQUIRE(support::append_snapshot(storage, "sound", 1) == Errc::ok);
    CHECK(read_all(storage, 1) == "sound");
    REQUIRE(storage.flush() == Errc::ok);
    REQUIRE(settle(storage) == Errc::ok);
    CHECK(storage.health() == Errc::ok);
}

TEST_CASE("no space for an end: where room was short it is refused, else the storage has failed") {
    Slow inner;
    BackgroundStorage storage(inner);
    open(storage);
    inner.is_end_full = true, inner.is_roomless = true;
    Model model;
    REQUIRE(run(storage, model, "af") == Errc::ok);
    REQUIRE_FALSE(storage.has_room());
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot("abc") == Errc::ok);
    CHECK(storage.end_snapshot(1, false) == Errc::storage_full);
    CHECK(storage.end_snapshot(1, false) == Errc::storage_full);
    CHECK(storage.appended() == 1);
    inner.is_end_full = false;
    REQUIRE(run(storage, model, "asafsnaf") == Errc::ok);
    inner.is_end_full = true, inner.is_roomless = false;
    REQUIRE(run(storage, model, "af") == Errc::ok);
    REQUIRE(storage.has_room());
    REQUIRE(support::append_snapshot(storage, "abc", 1) == Errc::ok);
    REQUIRE(comes_true([&] { return storage.health() == Errc::storage_failed; }));
    inner.is_end_full = false;
    recover(storage, model);
    CHECK(model.items.size() == 8);
}

TEST_CASE("an error behind is final, and what was durable stays") {
    for (const std::string what : {"append", "flush", "read", "read later", "health"}) {
        CAPTURE(what);
        Slow inner;
        MemoryStorage memory;
        std::atomic<int> woken{0};
        Storage& behind = what == "health" ? static_cast<Storage&>(memory) : inner;
        BackgroundStorage storage(behind, [&woken] { woken += 1; });
        open(storage);
        Model model;
        REQUIRE(run(storage, model, "asf") == Errc::ok);
        inner.is_append_bad = what == "append", inner.is_flush_bad = what == "flush";
        inner.is_read_bad = what.substr(0, 4) == "read";
        if (what == "health") memory.fail();
        Bytes bytes;
        if (what == "read") CHECK(support::read(storage, 2, 0, 9, bytes) == Errc::storage_failed);
        if (what == "read later") {
            inner.close_gate();
            REQUIRE(storage.flush() == Errc::ok);
            CHECK(storage.read_snapshot(2, 0, 9, bytes) == Errc::throttled_op);
            inner.open_gate();
        }
        const Errc accepted = storage.append("lost");
        CHECK((accepted == Errc::ok || accepted == Errc::storage_failed));
        storage.flush();
        REQUIRE(comes_true([&] { return storage.health() == Errc::storage_failed; }));
        CHECK(storage.append("x") == Errc::storage_failed);
        CHECK(storage.begin_snapshot() == Errc::storage_failed);
        CHECK(storage.write_snapshot("x") == Errc::storage_failed);
        CHECK(storage.end_snapshot(1, false) == Errc::storage_failed);
        CHECK(storage.flush() == Errc::storage_failed);
        CHECK(storage.read_snapshot(2, 0, 9, bytes) == Errc::storage_failed);
        CHECK(storage.durable() == 2);
        if (what != "read") REQUIRE(comes_true([&] { return woken >= 2; }));
        if (what == "health") continue;
        inner.is_append_bad = inner.is_flush_bad = inner.is_read_bad = false;
        Recovered heard;
        REQUIRE(storage.open(heard, owner) == Errc::ok);
        CHECK(storage.durable() >= 2);
        CHECK(storage.durable() <= model.items.size() + 1);
        CHECK(heard.lines.size() + 1 == storage.durable());  // the snapshot stands for the first
        CHECK(storage.health() == Errc::ok);
    }
}

TEST_CASE("a storage that does not open, or was not opened, is no more than that") {
    MemoryStorage memory;
    memory.fail();
    BackgroundStorage storage(memory);
    Recovered heard;
    CHECK(storage.open(heard, owner) == Errc::storage_failed);
    CHECK(storage.health() == Errc::storage_failed);
    CHECK(storage.append("x") == Errc::storage_failed);
    CHECK(storage.flush() == Errc::storage_failed);
    CHECK(storage.appended() == 0);
    CHECK(storage.id() == 0);
}

TEST_CASE("destroyed with work in the queue: what was flushed is there, the rest is a crash's") {
    for (const bool is_stuck : {false, true}) {
        CAPTURE(is_stuck);
        Slow inner;
        {
            BackgroundStorage storage(inner);
            open(storage);
            REQUIRE(storage.append("a") == Errc::ok);
            if (is_stuck) inner.close_gate();
            REQUIRE(storage.flush() == Errc::ok);
            if (is_stuck) REQUIRE(comes_true([&] { return inner.is_anybody_waiting(); }));
            REQUIRE(storage.append("b") == Errc::ok);
            REQUIRE(storage.flush() == Errc::ok);
            REQUIRE(storage.append("c") == Errc::ok);
            inner.open_gate();
        }
        CHECK(inner.durable() >= 2);
        BackgroundStorage storage(inner);
        Recovered heard;
        REQUIRE(storage.open(heard, owner) == Errc::ok);
        REQUIRE(heard.lines.size() >= 2);
        CHECK(heard.lines[0] == "1 a");
        CHECK(heard.lines[1] == "2 b");
    }
}

TEST_CASE("destroyed while a record waits for space: it does not hang") {
    Slow inner;
    {
        BackgroundStorage storage(inner);
        open(storage);
        inner.is_append_full = true;
        REQUIRE(storage.append("a") == Errc::ok);
        REQUIRE(storage.flush() == Errc::ok);
    }
    CHECK(inner.durable() == 0);
}

TEST_CASE("random: killed at any moment, what was durable is there and the rest is a prefix") {
    coord::Rng rng(support::seed_or(26));
    for (int run_number = 0; run_number < 10; run_number++) {
        MemoryStorage memory;
        Model model;
        for (int life = 0; life < 15; life++) {
            BackgroundStorage storage(memory);
            recover(storage, model);
            std::string script;
            for (std::uint64_t steps = rng.below(12); steps > 0; steps--) {
                script += "aaaaFFFfsnrb"[rng.below(12)];
            }
            CAPTURE(script);
            REQUIRE(run(storage, model, script) == Errc::ok);
        }
    }
}

#ifndef COORD_NO_FILES

coord::FileStorageOptions options_on(support::SimulatedFiles& disk) {
    coord::FileStorageOptions options;
    options.directory = "data";
    options.segment_bytes = 512;
    options.files = &disk;
    return options;
}

TEST_CASE("the contract, before a storage in files") {
    for (const char* const script : support::contract_scripts) {
        CAPTURE(script);
        support::SimulatedFiles disk;
        coord::FileStorage files(options_on(disk));
        BackgroundStorage storage(files);
        support::expect_contract(storage, script);
    }
    support::SimulatedFiles disk;
    coord::FileStorage files(options_on(disk));
    BackgroundStorage storage(files);
    support::expect_begun_can_be_read(storage);
}

TEST_CASE("the power is cut before any call of the disk: all that was told durable is there") {
    coord::Rng rng(27);
    for (const char* const script : {"aFaaFsaFaAf", "afasFanFarFaf", "AFAFsFAFAFsAf"}) {
        CAPTURE(script);
        bool is_through = false;
        for (std::uint64_t k = 1; !is_through; k++) {
            CAPTURE(k);
            support::SimulatedFiles disk;
            Model model;
            disk.cut_before(k);
            {
                coord::FileStorage files(options_on(disk));
                BackgroundStorage storage(files);
                Recovered heard;
                if (storage.open(heard, owner) == Errc::ok) run(storage, model, script);
            }
            is_through = !disk.is_cut();
            std::vector<bool> kept(disk.pending());
            for (std::size_t i = 0; i < kept.size(); i++) kept[i] = rng.chance(500);
            disk.cut_power(kept);
            coord::FileStorage files(options_on(disk));
            BackgroundStorage storage(files);
            recover(storage, model);
            REQUIRE(run(storage, model, "aFsaf") == Errc::ok);
            recover(storage, model);
        }
    }
}

TEST_CASE("a disk that is full holds up what comes, and goes on when there is space") {
    support::SimulatedFiles disk;
    Model model;
    {
        coord::FileStorage files(options_on(disk));
        BackgroundStorage storage(files);
        recover(storage, model);
        REQUIRE(run(storage, model, "af") == Errc::ok);
        disk.capacity = 2048;
        while (run(storage, model, "aF") == Errc::ok && model.items.size() < 100000) {
        }
        CHECK(storage.health() == Errc::ok);
        CHECK_FALSE(storage.has_room());
        CHECK(storage.append("x") == Errc::storage_full);
        CHECK(model.durable > 10);
        CHECK(storage.durable() < storage.appended());  // what was accepted, and found no space
    }
    disk.capacity = UINT64_MAX;
    coord::FileStorage files(options_on(disk));
    BackgroundStorage storage(files);
    disk.end_process();
    recover(storage, model);
    REQUIRE(run(storage, model, "aasaf") == Errc::ok);
    CHECK(storage.has_room());
}

#endif  // COORD_NO_FILES

}  // TEST_SUITE

// -------------------------------------------------------------------------------------------------
// Replicas

namespace {

// One that says "not now" to every other read, and piece, as a thread that is busy does.
class Busy final : public Storage {
public:
    explicit Busy(Storage& inner) : inner_(inner) {}
    std::uint64_t refused = 0;
    std::uint64_t behind = 0;  // of these, pieces
    std::uint64_t pushed = 0;  // pieces that came all the same
    Errc open(coord::RecoverySink& sink, const coord::StorageOwner& whose) override {
        return inner_.open(sink, whose);
    }
    Errc append(BytesView record) override {
        is_changed_ = true;
        return inner_.append(record);
    }
    Errc begin_snapshot() override { return inner_.begin_snapshot(); }
    Errc write_snapshot(BytesView piece) override {
        if (piece.empty()) is_behind_ = !is_behind_;
        if (piece.empty() && is_behind_) return refused += 1, behind += 1, Errc::throttled_op;
        if (is_behind_) pushed += 1;
        return inner_.write_snapshot(piece);
    }
    Errc end_snapshot(Sequence first_needed, bool replaces) override {
        return inner_.end_snapshot(first_needed, replaces);
    }
    Errc read_snapshot(Sequence snapshot, std::uint64_t offset, std::size_t size,
                       Bytes& out) override {
        is_next_refused_ = is_changed_ && !is_next_refused_;
        if (!is_next_refused_) return inner_.read_snapshot(snapshot, offset, size, out);
        refused += 1;
        return Errc::throttled_op;
    }
    Errc flush() override { return inner_.flush(); }
    Sequence appended() const override { return inner_.appended(); }
    Sequence durable() const override { return inner_.durable(); }
    Errc health() const override { return inner_.health(); }
    bool has_room() const override { return inner_.has_room(); }
    std::uint64_t id() const override { return inner_.id(); }

private:
    Storage& inner_;
    bool is_changed_ = false;
    bool is_next_refused_ = false;
    bool is_behind_ = false;
};

coord::Time clock_now() {
    return coord::Time{std::chrono::duration_cast<std::chrono::nanoseconds>(
                           std::chrono::steady_clock::now().time_since_epoch())
                           .count()};
}

// Voters 1 to 3, or 1 alone, in one process and in real time.
struct Ensemble {
    struct Wire final : coord::Transport {
        Ensemble* ensemble = nullptr;
        PeerId self;
        void send(PeerId to, BytesView bytes) override {
            ensemble->packets.push_back({{self, to}, Bytes(bytes)});
        }
        std::size_t message_bytes_max() const override { return 2048; }
    };
    struct Node {
        MemoryStorage memory;
        std::unique_ptr<Storage> disk;
        Wire wire;
        std::unique_ptr<Replica> replica;
    };
    using Make = std::function<std::unique_ptr<Storage>(Storage&)>;
    std::deque<std::pair<std::pair<PeerId, PeerId>, Bytes>> packets;
    std::vector<std::unique_ptr<Node>> nodes;
    Make make;
    std::uint64_t starts = 0;

    Ensemble(std::uint32_t count, Make maker) : make(std::move(maker)) {
        for (std::uint32_t id = 1; id <= count; id++) {
            nodes.push_back(std::make_unique<Node>());
            nodes.back()->wire.ensemble = this, nodes.back()->wire.self = PeerId{id};
        }
        for (std::uint32_t id = 1; id <= count; id++) start(id);
    }
    Node& node(std::uint32_t id) { return *nodes[id - 1]; }
    Replica& replica(std::uint32_t id) { return *node(id).replica; }
    void start(std::uint32_t id) {
        coord::ReplicaOptions options;
        options.id = PeerId{id}, options.entropy = 500 + ++starts, options.ensemble = 5;
        options.voters.clear();
        for (std::uint32_t v = 1; v <= nodes.size(); v++) options.voters.push_back(PeerId{v});
        options.snapshot_every_entries = 20, options.log_entries_kept = 5;
        node(id).disk = make(node(id).memory);
        node(id).replica =
            std::make_unique<Replica>(options, *node(id).disk, node(id).wire);
    }
    void stop(std::uint32_t id) { node(id).replica.reset(), node(id).disk.reset(); }
    bool turn() {
        for (auto count = packets.size(); count > 0; count--) {
            const auto packet = std::move(packets.front());
            packets.pop_front();
            const auto& to = node(packet.first.second.value).replica;
            if (to) to->receive(packet.first.first, packet.second);
        }
        for (const auto& each : nodes) {
            if (each->replica) each->replica->poll(clock_now());
        }
        std::this_thread::yield();
        return true;
    }
    bool until(const std::function<bool()>& condition) {
        return comes_true([&] { return turn() && condition(); });
    }
    coord::Sync client(std::uint32_t id) {
        const auto pump = [this] { return turn(); };
        coord::Result<coord::Session> session = coord::Sync::open(replica(id), {}, pump);
        REQUIRE(session);
        return coord::Sync(*session, pump);
    }
    std::uint32_t leader() const {
        for (const auto& each : nodes) {
            if (each->replica && each->replica->status().role == coord::Role::leading &&
                each->replica->status().serving) {
                return each->wire.self.value;
            }
        }
        return 0;
    }
};

void write_some(coord::Sync& zk, const std::string& prefix, int count) {
    for (int i = 0; i < count; i++) {
        const std::string path = prefix + std::to_string(i);
        REQUIRE(zk.create(path, Bytes(300, 'v')));
    }
}

std::unique_ptr<Storage> in_background(Storage& inner) {
    return std::make_unique<BackgroundStorage>(inner);
}

std::unique_ptr<Storage> often_busy(Storage& inner) { return std::make_unique<Busy>(inner); }

}  // namespace

TEST_SUITE("06 background") {

TEST_CASE("a replica alone: writes, snapshots, kills") {
    for (const Ensemble::Make& make : {Ensemble::Make(in_background), Ensemble::Make(often_busy)}) {
        Ensemble ensemble(1, make);
        for (int life = 0; life < 4; life++) {
            const std::string prefix = "/" + std::to_string(life) + "_";
            {
                coord::Sync zk = ensemble.client(1);
                write_some(zk, prefix, 60);
                REQUIRE(ensemble.until([&] {
                    return ensemble.replica(1).counters().snapshots_taken >= 2;
                }));
                CHECK(ensemble.replica(1).counters().snapshots_given_up == 0);
                zk.session().create(prefix + "unanswered", "", {}, [](const auto&) {});
                ensemble.turn();
            }
            ensemble.stop(1);
            ensemble.start(1);
            for (int before = 0; before <= life; before++) {
                for (int i = 0; i < 60; i++) {
                    const std::string path =
                        "/" + std::to_string(before) + "_" + std::to_string(i);
                    REQUIRE(ensemble.until([&] {
                        return ensemble.replica(1).tree().find(path).has_value();
                    }));
                }
            }
        }
    }
}

TEST_CASE("a snapshot that waits for the disk asks for a poll in a while, and not at once") {
    MemoryStorage memory;
    Busy disk(memory);
    coord::ReplicaOptions options;
    options.snapshot_every_entries = 5;
    Replica replica(options, disk);
    coord::Time now;
    coord::SessionId id;
    replica.open_session({}, [&](coord::Result<coord::SessionId> opened) { id = *opened; });
    int waits = 0;
    for (int i = 0; i < 500; i++) {
        const std::uint64_t refused = disk.refused;
        replica.poll(now = now + coord::milliseconds(1));
        if (disk.refused > refused) {
            CHECK(replica.next_deadline() == now + coord::milliseconds(1));
            waits += 1;
        }
        if (id == coord::SessionId{} || i % 5 != 0) continue;
        coord::Request request;
        request.kind = coord::Request::Kind::set;
        request.path = "/";
        request.done = coord::OnStat([](const coord::Result<coord::Stat>&) {});
        replica.submit(id, std::move(request));
    }
    CHECK(waits > 5);
    CHECK(disk.behind > 5);
    CHECK(disk.pushed == 0);
    CHECK(disk.refused > disk.behind);
    CHECK(replica.counters().snapshots_taken > 5);
}

TEST_CASE("three replicas: a leader is killed, a learner fetches a snapshot, all agree") {
    for (const Ensemble::Make& make : {Ensemble::Make(in_background), Ensemble::Make(often_busy)}) {
        Ensemble ensemble(3, make);
        REQUIRE(ensemble.until([&] { return ensemble.leader() != 0; }));
        const std::uint32_t head = ensemble.leader();
        const std::uint32_t behind = head == 1 ? 2 : 1;
        const std::uint32_t third = 6 - head - behind;
        ensemble.stop(behind);
        const coord::Time stopped = clock_now();  // what it might need is kept for a while
        REQUIRE(ensemble.until([&] { return clock_now() - stopped > coord::milliseconds(700); }));
        {
            coord::Sync zk = ensemble.client(third);
            write_some(zk, "/a", 100);
            ensemble.start(behind);
            REQUIRE(ensemble.until([&] {
                return ensemble.replica(behind).counters().snapshots_installed > 0;
            }));
            REQUIRE(ensemble.until([&] { return ensemble.replica(behind).status().serving; }));
            ensemble.stop(head);  // whatever it has not flushed is lost
            write_some(zk, "/b", 30);
            ensemble.start(head);
            REQUIRE(zk.close());
        }
        REQUIRE(ensemble.until([&] {
            for (std::uint32_t id = 1; id <= 3; id++) {
                const coord::ReplicaStatus status = ensemble.replica(id).status();
                if (!status.serving || status.digest != ensemble.replica(1).status().digest ||
                    status.applied != ensemble.replica(1).status().applied) {
                    return false;
                }
            }
            return true;
        }));
        for (std::uint32_t id = 1; id <= 3; id++) {
            CHECK(ensemble.replica(id).tree().find("/a99"));
            CHECK(ensemble.replica(id).tree().find("/b29"));
        }
    }
}

TEST_CASE("faults D22: a replica on a disk that hangs is polled on, and acknowledges afterwards") {
    Slow inner;
    BackgroundStorage storage(inner);
    Replica replica({}, storage);
    const auto pump = [&] {
        replica.poll(clock_now());
        std::this_thread::yield();
        return true;
    };
    coord::Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
    REQUIRE(session);
    inner.close_gate();
    int done = 0;
    for (int i = 0; i < 50; i++) {
        session->create("/n" + std::to_string(i), "", {}, [&done](const auto& made) {
            if (made) done += 1;
        });
        pump();
    }
    REQUIRE(comes_true([&] { return pump() && inner.is_anybody_waiting(); }));
    for (int i = 0; i < 50; i++) pump();
    CHECK(done == 0);
    CHECK_FALSE(replica.tree().find("/n0"));
    CHECK(replica.status().role == coord::Role::leading);
    inner.open_gate();
    REQUIRE(comes_true([&] { return pump() && done == 50; }));
    CHECK(replica.tree().find("/n49"));
    CHECK_FALSE(inner.has_overlapped);
}

TEST_CASE("a replica stops when the storage behind fails") {
    Slow inner;
    BackgroundStorage storage(inner);
    Replica replica({}, storage);
    const auto pump = [&] { return replica.poll(clock_now()), true; };
    coord::Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
    REQUIRE(session);
    inner.is_flush_bad = true;
    Errc error = Errc::ok;
    session->create("/n", "", {}, [&error](const auto& made) { error = made.error(); });
    REQUIRE(comes_true([&] { return pump() && replica.status().role == coord::Role::failed; }));
    pump();
    CHECK(error == Errc::outcome_unknown);  // R13
}

}  // TEST_SUITE

#endif  // COORD_NO_THREADS
