// Chapter 6: the contract of storages, tried on the one in memory.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::MemoryStorage;
using coord::Sequence;
using Lines = std::vector<std::string>;

// What open tells: "1 text" for a record, "2 [text]" for a snapshot.
struct Recovered final : coord::RecoverySink {
    Lines lines;
    void on_record(Sequence sequence, BytesView record) override {
        lines.push_back(std::to_string(sequence) + " " + Bytes(record));
    }
    void on_snapshot(Sequence sequence, BytesView head, std::uint64_t size) override {
        CHECK(head.size() == (std::min)(size, std::uint64_t{64}));
        lines.push_back(std::to_string(sequence) + " [" + Bytes(head) + "]");
    }
};

Lines reopen(MemoryStorage& disk) {
    Recovered recovered;
    CHECK(disk.open(recovered, {}) == Errc::ok);
    CHECK(disk.appended() == disk.durable());
    return recovered.lines;
}

void append(MemoryStorage& disk, BytesView bytes) { REQUIRE(disk.append(bytes) == Errc::ok); }

}  // namespace

TEST_SUITE("06 storage") {

TEST_CASE("a new storage is empty") {
    MemoryStorage disk;
    CHECK(reopen(disk) == Lines{});
    CHECK(disk.appended() == 0);
    CHECK(disk.durable() == 0);
    CHECK(disk.flushed() == 0);
    CHECK(disk.bytes() == 0);
    CHECK(disk.health() == Errc::ok);
    CHECK(disk.flush() == Errc::ok);
    CHECK(disk.durable() == 0);
}

TEST_CASE("S1 sequences count from 1, over records and snapshots alike") {
    MemoryStorage disk;
    append(disk, "a");
    CHECK(disk.appended() == 1);
    REQUIRE(support::append_snapshot(disk, "s") == Errc::ok);
    CHECK(disk.appended() == 2);
    append(disk, "b");
    CHECK(disk.appended() == 3);
    CHECK(disk.durable() == 0);
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.durable() == 3);
    CHECK(reopen(disk) == Lines{"1 a", "2 [s]", "3 b"});
}

TEST_CASE("it takes copies") {
    MemoryStorage disk;
    Bytes record = "before";
    append(disk, record);
    record = "after!";
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(reopen(disk) == Lines{"1 before"});
}

TEST_CASE("S2 what was not flushed is gone after a crash, and its numbers are used again") {
    MemoryStorage disk;
    append(disk, "a");
    REQUIRE(disk.flush() == Errc::ok);
    append(disk, "b");
    append(disk, "c");
    CHECK(disk.durable() == 1);
    CHECK(disk.bytes() == 3);
    disk.crash();
    CHECK(disk.appended() == 1);
    CHECK(disk.bytes() == 1);
    append(disk, "d");
    CHECK(disk.appended() == 2);
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(reopen(disk) == Lines{"1 a", "2 d"});
}

TEST_CASE("S1 open alone is a crash: the life before has ended") {
    MemoryStorage disk;
    append(disk, "a");
    CHECK(reopen(disk) == Lines{});
    CHECK(disk.appended() == 0);
}

TEST_CASE("S1 a crash with any number of survivors cuts the tail and nothing else") {
    for (std::size_t survivors = 0; survivors <= 8; survivors++) {
        CAPTURE(survivors);
        MemoryStorage disk;
        Lines all;
        for (int i = 1; i <= 6; i++) {
            append(disk, "r" + std::to_string(i));
            all.push_back(std::to_string(i) + " r" + std::to_string(i));
            if (i == 2) REQUIRE(disk.flush() == Errc::ok);
        }
        disk.crash(survivors);
        const std::size_t kept = (std::min)(std::size_t{6}, 2 + survivors);
        CHECK(disk.appended() == kept);
        CHECK(disk.durable() == kept);
        all.resize(kept);
        CHECK(reopen(disk) == all);
    }
}

TEST_CASE("S2 while flushes are held durable() stands still; release moves it, never past flush") {
    MemoryStorage disk;
    append(disk, "a");
    REQUIRE(disk.flush() == Errc::ok);
    disk.hold_flushes();
    append(disk, "b");
    append(disk, "c");
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.flushed() == 3);
    CHECK(disk.durable() == 1);
    append(disk, "d");
    disk.release(2);
    CHECK(disk.durable() == 2);
    disk.release(1);
    CHECK(disk.durable() == 2);
    disk.release();
    CHECK(disk.durable() == 3);
    CHECK(disk.appended() == 4);
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.durable() == 3);
    disk.stop_holding();
    CHECK(disk.durable() == 4);
    append(disk, "e");
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.durable() == 5);
}

TEST_CASE("a crash while flushes are held loses what was flushed and not released") {
    MemoryStorage disk;
    disk.hold_flushes();
    append(disk, "a");
    append(disk, "b");
    REQUIRE(disk.flush() == Errc::ok);
    disk.release(1);
    disk.crash();
    CHECK(disk.flushed() == 1);
    disk.stop_holding();
    CHECK(disk.durable() == 1);
    CHECK(reopen(disk) == Lines{"1 a"});
}

TEST_CASE("of the durable snapshots open tells the newest alone, in its place") {
    MemoryStorage disk;
    append(disk, "a");
    REQUIRE(support::append_snapshot(disk, "old") == Errc::ok);
    append(disk, "b");
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.bytes() == 5);
    REQUIRE(support::append_snapshot(disk, "newer") == Errc::ok);
    append(disk, "c");
    CHECK(disk.bytes() == 11);
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.bytes() == 8);  // the old one's bytes are given back
    CHECK(reopen(disk) == Lines{"1 a", "3 b", "4 [newer]", "5 c"});
}

TEST_CASE("a snapshot that did not become durable leaves the older one in force") {
    for (std::size_t survivors = 0; survivors <= 2; survivors++) {
        CAPTURE(survivors);
        MemoryStorage disk;
        REQUIRE(support::append_snapshot(disk, "old") == Errc::ok);
        REQUIRE(disk.flush() == Errc::ok);
        append(disk, "a");
        REQUIRE(support::append_snapshot(disk, "new") == Errc::ok);
        disk.crash(survivors);
        Lines expected{"1 [old]"};
        if (survivors > 0) expected.push_back("2 a");
        if (survivors == 2) expected = {"2 a", "3 [new]"};
        CHECK(reopen(disk) == expected);
    }
}

TEST_CASE("an empty record and an empty snapshot are records too") {
    MemoryStorage disk;
    append(disk, "");
    REQUIRE(support::append_snapshot(disk, "") == Errc::ok);
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(reopen(disk) == Lines{"1 ", "2 []"});
    CHECK(disk.bytes() == 0);
}

TEST_CASE("S3 what a snapshot makes needless goes when it is durable, and the numbers stay") {
    MemoryStorage disk;
    for (const char* const record : {"a", "b", "c", "d"}) append(disk, record);
    REQUIRE(support::append_snapshot(disk, "s", 3) == Errc::ok);
    CHECK(disk.bytes() == 5);  // it is not durable yet
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.bytes() == 3);
    CHECK(disk.appended() == 5);
    CHECK(reopen(disk) == Lines{"3 c", "4 d", "5 [s]"});
    append(disk, "e");
    CHECK(disk.appended() == 6);
    REQUIRE(support::append_snapshot(disk, "t", 7) == Errc::ok);
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.bytes() == 1);
    append(disk, "f");
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(reopen(disk) == Lines{"7 [t]", "8 f"});
}

TEST_CASE("S3 a snapshot is written in pieces, while records go on, and read in pieces") {
    MemoryStorage disk;
    Bytes all;
    REQUIRE(disk.begin_snapshot() == Errc::ok);
    for (int i = 0; i < 40; i++) {
        const Bytes piece(static_cast<std::size_t>(i * 331), static_cast<char>('a' + i % 26));
        all += piece;
        REQUIRE(disk.write_snapshot(piece) == Errc::ok);
        append(disk, std::to_string(i));
        REQUIRE(disk.flush() == Errc::ok);
    }
    REQUIRE(all.size() > 3 * 65536);
    const auto read = [&](Sequence which, std::uint64_t offset, std::size_t size) {
        Bytes out = "before:";
        REQUIRE(disk.read_snapshot(which, offset, size, out) == Errc::ok);
        return out.substr(7);
    };
    CHECK(read(0, 0, SIZE_MAX) == all);
    REQUIRE(disk.end_snapshot(11, false) == Errc::ok);
    CHECK(disk.appended() == 41);
    REQUIRE(disk.flush() == Errc::ok);
    for (const std::size_t offset : {0u, 1u, 65535u, 65536u, 65537u, 200000u}) {
        for (const std::size_t size : {0u, 1u, 65536u, 65537u, 300000u}) {
            CHECK(read(41, offset, size) == all.substr(offset, size));
        }
    }
    CHECK(read(41, all.size(), 10).empty());
    CHECK(read(41, all.size() + 10, 10).empty());
    REQUIRE(disk.begin_snapshot() == Errc::ok);
    REQUIRE(disk.write_snapshot("another") == Errc::ok);
    CHECK(read(0, 0, 100) == "another");  // beside the one that is in force
    CHECK(read(41, 0, 5) == all.substr(0, 5));
    REQUIRE(disk.begin_snapshot() == Errc::ok);
    CHECK(read(0, 0, 100).empty());
    CHECK(disk.bytes() == all.size() + 2 * 30);  // records 11 to 40
}

TEST_CASE("S3 a snapshot that was begun and not ended is gone after a crash") {
    MemoryStorage disk;
    append(disk, "a");
    REQUIRE(disk.flush() == Errc::ok);
    REQUIRE(disk.begin_snapshot() == Errc::ok);
    REQUIRE(disk.write_snapshot("half") == Errc::ok);
    CHECK(disk.bytes() == 5);
    disk.crash(9);
    CHECK(disk.bytes() == 1);
    CHECK(reopen(disk) == Lines{"1 a"});
}

TEST_CASE("an id is drawn at birth and kept") {
    MemoryStorage disk, other;
    CHECK(disk.id() == 0);
    Recovered recovered;
    REQUIRE(disk.open(recovered, {7, 1}) == Errc::ok);
    REQUIRE(other.open(recovered, {7, 2}) == Errc::ok);
    const std::uint64_t id = disk.id();
    CHECK(id != 0);
    CHECK(id != other.id());
    disk.crash();
    REQUIRE(disk.open(recovered, {7, 3}) == Errc::ok);
    CHECK(disk.id() == id);
}

TEST_CASE("a failed storage refuses everything and says so; what was durable is not touched") {
    MemoryStorage disk;
    append(disk, "a");
    REQUIRE(disk.flush() == Errc::ok);
    append(disk, "b");
    disk.fail();
    CHECK(disk.health() == Errc::storage_failed);
    CHECK(disk.append("c") == Errc::storage_failed);
    CHECK(support::append_snapshot(disk, "s") == Errc::storage_failed);
    CHECK(disk.flush() == Errc::storage_failed);
    disk.release();
    CHECK(disk.durable() == 1);
    CHECK(disk.appended() == 2);
    Recovered recovered;
    CHECK(disk.open(recovered, {}) == Errc::storage_failed);
    CHECK(recovered.lines.empty());
}

TEST_CASE("random: against a plain model of records, flushes and crashes") {
    for (std::uint64_t seed = 1; seed <= 20; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        MemoryStorage disk;
        std::vector<std::pair<bool, std::string>> items;  // of sequence 1 on
        std::map<std::size_t, std::size_t> needed;        // by each snapshot
        std::size_t durable = 0, flushed = 0, first = 1, newest = 0;
        bool held = false;
        for (int step = 0; step < 300; step++) {
            const std::string text = std::to_string(step);
            switch (rng.below(8)) {
                case 0: case 1: case 2:
                    append(disk, text);
                    items.emplace_back(false, text);
                    break;
                case 3:
                    needed[items.size() + 1] =
                        rng.chance(300) ? items.size() + 1 - rng.below(2) : 0;
                    REQUIRE(support::append_snapshot(disk, text, needed[items.size() + 1]) ==
                            Errc::ok);
                    items.emplace_back(true, text);
                    break;
                case 4:
                    REQUIRE(disk.flush() == Errc::ok);
                    flushed = items.size();
                    if (!held) durable = flushed;
                    break;
                case 5: {
                    const std::size_t to = rng.below(items.size() + 3);
                    disk.release(to);
                    durable = (std::max)(durable, (std::min)(to, flushed));
                    break;
                }
                case 6:
                    held = !held;
                    held ? disk.hold_flushes() : disk.stop_holding();
                    if (!held) durable = flushed;
                    break;
                default: {
                    const std::size_t survivors = rng.below(4);
                    disk.crash(survivors);
                    items.resize((std::min)(items.size(), durable + survivors));
                    durable = flushed = items.size();
                    break;
                }
            }
            for (std::size_t i = 1; i <= durable; i++) {
                if (items[i - 1].first) newest = i;
            }
            if (newest > 0) first = (std::max)(first, needed[newest]);
            REQUIRE(disk.appended() == items.size());
            REQUIRE(disk.durable() == durable);
            if (rng.chance(100)) {
                items.resize(durable), flushed = durable;
                Lines expected;
                for (std::size_t i = first; i <= durable; i++) {
                    const bool snapshot = items[i - 1].first;
                    const std::string number = std::to_string(i);
                    if (!snapshot) expected.push_back(number + " " + items[i - 1].second);
                    if (i == newest) expected.push_back(number + " [" + items[i - 1].second + "]");
                }
                REQUIRE(reopen(disk) == expected);
            }
        }
    }
}

TEST_CASE("S10 a storage that starts over is empty, is another one, and never founds") {
    coord::MemoryStorage disk;
    REQUIRE(reopen(disk).empty());
    const std::uint64_t born = disk.id();
    CHECK(disk.may_found());
    REQUIRE(disk.append("one") == Errc::ok);
    REQUIRE(disk.flush() == Errc::ok);
    disk.hold_flushes();
    REQUIRE(disk.start_over(0) == Errc::ok);
    CHECK(disk.id() != born);
    CHECK(disk.id() != 0);
    CHECK_FALSE(disk.may_found());
    CHECK(disk.appended() == 0);
    CHECK(disk.bytes() == 0);
    REQUIRE(disk.append("two") == Errc::ok);
    REQUIRE(disk.flush() == Errc::ok);
    CHECK(disk.durable() == 0);  // the test that holds its flushes still does
    disk.stop_holding();
    const std::uint64_t second = disk.id();
    CHECK(reopen(disk) == Lines{"1 two"});
    CHECK(disk.id() == second);
    CHECK_FALSE(disk.may_found());  // for ever
    disk.fail();
    CHECK(disk.start_over(1) == Errc::storage_failed);
    CHECK(disk.id() == second);
}

TEST_CASE("rolled back: an older image, durable or not") {
    coord::MemoryStorage disk;
    REQUIRE(reopen(disk).empty());
    for (const char* record : {"one", "two", "three"}) REQUIRE(disk.append(record) == Errc::ok);
    REQUIRE(disk.flush() == Errc::ok);
    REQUIRE(disk.append("four") == Errc::ok);
    const std::uint64_t id = disk.id();
    disk.roll_back(3);
    CHECK(reopen(disk) == Lines{"1 one", "2 two", "3 three"});
    disk.roll_back(1);
    CHECK(reopen(disk) == Lines{"1 one"});
    CHECK(disk.id() == id);
}

}  // TEST_SUITE
