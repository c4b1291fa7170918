// Chapter 6: FileStorage, on the files of this system and on a disk that loses, tears and rots.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "coord.hpp"
#include "simulated_disk.hpp"
#include "storage_contract.hpp"
#include "support.hpp"

#ifndef _WIN32
#include <csignal>
#include <sys/wait.h>
#include <unistd.h>
#endif

#ifndef COORD_NO_FILES

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::FileStorage;
using coord::FileStorageOptions;
using coord::Sequence;
using coord::Storage;
using support::SimulatedFiles;
using support::Model;
using support::owner;
using support::Recovered;
using support::recover;
using support::run;
using Call = SimulatedFiles::Call;
using Lines = std::vector<std::string>;

FileStorageOptions options_on(SimulatedFiles& disk, std::uint64_t segment_bytes = 512) {
    FileStorageOptions options;
    options.directory = "data";
    options.segment_bytes = segment_bytes;
    options.files = &disk;
    return options;
}

// Every way in which a power cut can choose among so many pending things; where they are too many,
// none, all, each prefix, each one alone, each one lost, and some by chance.
std::vector<std::vector<bool>> choices(std::size_t count, std::size_t exhaustive_max,
                                       coord::Rng& rng) {
    std::vector<std::vector<bool>> out;
    if (count <= exhaustive_max) {
        for (std::size_t mask = 0; mask < std::size_t{1} << count; mask++) {
            std::vector<bool> kept(count);
            for (std::size_t i = 0; i < count; i++) kept[i] = (mask >> i & 1) != 0;
            out.push_back(kept);
        }
        return out;
    }
    for (std::size_t i = 0; i <= count; i++) {
        std::vector<bool> prefix(count), alone(count), lost(count, true);
        std::fill(prefix.begin(), prefix.begin() + static_cast<std::ptrdiff_t>(i), true);
        out.push_back(prefix);
        if (i == count) continue;
        alone[i] = true, lost[i] = false;
        out.push_back(alone), out.push_back(lost);
    }
    for (int i = 0; i < 16; i++) {
        std::vector<bool> kept(count);
        for (std::size_t j = 0; j < count; j++) kept[j] = rng.chance(500);
        out.push_back(kept);
    }
    return out;
}

// Runs script on a copy of disk and cuts the power before each call of the port in turn, with every
// choice of survivors; calls judge with each disk that comes of it and what it must hold.
template <class Judge>
std::size_t cut_everywhere(const SimulatedFiles& start, const Model& model_before,
                           const std::string& script, std::size_t exhaustive_max, Judge judge) {
    std::size_t count = 0;
    coord::Rng rng(script.size());
    for (std::uint64_t k = 1;; k++) {
        SimulatedFiles disk = start;
        disk.cut_before(disk.calls() + k);
        Model model = model_before;
        {
            FileStorage storage(options_on(disk));
            Recovered heard;
            if (storage.open(heard, owner) == Errc::ok) run(storage, model, script);
        }
        for (const std::vector<bool>& kept : choices(disk.pending(), exhaustive_max, rng)) {
            CAPTURE(k);
            SimulatedFiles after = disk;
            after.cut_power(kept);
            judge(after, model);
            count += 1;
        }
        if (!disk.is_cut()) return count;
    }
}

// Opens, goes on, and opens once more.
void expect_sound(SimulatedFiles disk, Model model) {
    {
        FileStorage storage(options_on(disk));
        recover(storage, model);
        REQUIRE(run(storage, model, "aafAaf") == Errc::ok);
    }
    disk.end_process();
    FileStorage storage(options_on(disk));
    recover(storage, model);
    REQUIRE(model.durable == model.items.size());
}

// A disk on which script has been run, all of it flushed, and the process has ended.
SimulatedFiles disk_after(const std::string& script, Model& model,
                          std::size_t segment_bytes = 512) {
    SimulatedFiles disk;
    FileStorage storage(options_on(disk, segment_bytes));
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    REQUIRE(run(storage, model, script) == Errc::ok);
    return disk;
}

struct Opened {
    Errc error = Errc::ok;
    coord::RecoveryReport report;
    Bytes reason;
    Lines lines;
    Sequence last = 0;
};

// Opens what may be damaged. Whatever comes of it, what is handed over is what was appended.
Opened open_damaged(SimulatedFiles& disk, const Model& model) {
    disk.end_process();
    FileStorage storage(options_on(disk));
    Recovered heard;
    Opened out;
    out.error = storage.open(heard, owner);
    storage.check_snapshots();
    out.report = storage.report(), out.reason = storage.reason(), out.last = storage.appended();
    for (std::size_t i = 0; i < heard.lines.size(); i++) {
        if (heard.lines[i].empty()) heard.lines[i] = std::to_string(heard.snapshot) + " [" +
                                                    model.items[heard.snapshot - 1].text + "]";
    }
    out.lines = heard.lines;
    if (out.report.first != 0) {
        REQUIRE(out.report.last <= model.items.size());
        REQUIRE(heard.snapshot == out.report.snapshot);
        REQUIRE(heard.lines == model.lines_from(heard.snapshot, out.report.last));
    }
    REQUIRE((out.error == Errc::corrupt) == (storage.health() != Errc::ok));
    if (out.error == Errc::corrupt) {
        REQUIRE_FALSE(out.reason.empty());
        REQUIRE(storage.append("x") == Errc::corrupt);
    }
    return out;
}

std::string path_in_data(const char* kind, Sequence sequence) {
    char name[64];
    std::snprintf(name, sizeof name, "data/%s.%016llx", kind,
                  static_cast<unsigned long long>(sequence));
    return name;
}

std::vector<std::string> segments_on(const SimulatedFiles& disk) {
    std::vector<std::string> out;
    for (const std::string& path : disk.paths()) {
        if (path.find("/log.") != std::string::npos) out.push_back(path);
    }
    return out;
}

bool have_same_files(const SimulatedFiles& a, const SimulatedFiles& b) {
    if (a.paths() != b.paths()) return false;
    for (const std::string& path : a.paths()) {
        if (a.contents(path) != b.contents(path)) return false;
    }
    return true;
}

// A directory of this system that is removed again.
struct Scratch {
    std::filesystem::path path;
    explicit Scratch(const char* name)
        : path(std::filesystem::temp_directory_path() /
               (std::string("coord_") + name + "_" +
                std::to_string(reinterpret_cast<std::uintptr_t>(this) % 1000003))) {
        std::filesystem::remove_all(path);
    }
    ~Scratch() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
    FileStorageOptions options() const {
        FileStorageOptions out;
        out.directory = path.string();
        out.segment_bytes = 4096;
        return out;
    }
};

}  // namespace

TEST_SUITE("06 files") {

TEST_CASE("the contract: both storages do the same") {
    for (const char* const script : support::contract_scripts) {
        CAPTURE(script);
        coord::MemoryStorage memory;
        SimulatedFiles disk;
        FileStorage files(options_on(disk));
        support::expect_contract(memory, script);
        support::expect_contract(files, script);
    }
}

TEST_CASE("the contract: a snapshot that was begun can be read before it is ended") {
    coord::MemoryStorage memory;
    SimulatedFiles disk;
    FileStorage files(options_on(disk));
    support::expect_begun_can_be_read(memory);
    support::expect_begun_can_be_read(files);
}

TEST_CASE("FORMAT: the bytes of each file") {
    Model model;
    SimulatedFiles disk = disk_after("afsfaf", model, 256);
    const Bytes log = disk.contents(path_in_data("log", 1));
    CHECK(log.size() == 256);
    CHECK(support::hex(log.substr(0, 64)) ==
          "636f6f72646c6f67000000010000000000000007aca5b4227c6c0db300000000"
          "0000000100000000000000000000000000000000000000000000000080412524");
    CHECK(support::hex(log.substr(64, 38)) ==
          "00000002a0d70011000000000000000100000000000000000000000001000000a4462b1b6131");
    CHECK(support::hex(log.substr(102, 57)) ==
          "00000015578d78de00000000000000020000000000000001a4462b1b02000000a33d17c2"
          "00000000000000020000000000000010229b7b2400");
    CHECK(support::hex(log.substr(159, 38)) ==
          "0000000241ec70e600000000000000030000000000000002a33d17c201000000fcca04786133");
    CHECK(log.substr(197) == Bytes(59, '\0'));
    CHECK(support::hex(disk.contents("data/mark")) ==
          "636f6f72646d726b000000010000000000000007aca5b4227c6c0db300000000"
          "00000003000000000000000000000000000000000000000000000000a03379da");
    const Bytes snapshot = disk.contents(path_in_data("snapshot", 2));
    CHECK(support::hex(snapshot.substr(0, 64)) ==
          "636f6f7264736e70000000010000000000000007aca5b4227c6c0db300000000"
          "0000000200000000000000020000000000000010229b7b24000000005cf8a4ea");
    CHECK(snapshot.substr(64) == "s2 is a snapshot");
    CHECK(disk.exists("data/lock"));
    CHECK(disk.exists(path_in_data("spare", 2)));
    CHECK(disk.paths().size() == 5);
}

TEST_CASE("faults T1: a power cut before each call, with every choice of what survives") {
    std::size_t count = 0;
    for (const char* const script : {"aafaf", "afAfaf", "aafsfaf", "afrafaf", "anfaabsafAf",
                                     "aaaaaafaaaaaafaaaaaaf", "asfafsfafsfafsfafaf"}) {
        CAPTURE(script);
        count += cut_everywhere(SimulatedFiles{}, Model{}, script, 7, expect_sound);
    }
    CHECK(count > 5000);
}

TEST_CASE("faults T1: a power cut in a recovery that follows a power cut") {
    std::size_t count = 0, seen = 0;
    for (const char* const script : {"afAaf", "asfafrfaf", "asfaafnsfaaaaaafsf"}) {
        cut_everywhere(SimulatedFiles{}, Model{}, script, 4,
                       [&](const SimulatedFiles& disk, const Model& model) {
                           if (seen++ % 29 != 0) return;
                           count += cut_everywhere(disk, model, "", 3, expect_sound);
                       });
    }
    CHECK(count > 500);
}

TEST_CASE("faults D1 D2: sectors of 64 bytes: a flush of several records torn in every way") {
    Model model;
    SimulatedFiles disk = disk_after("aaf", model, 2048);
    disk.sector = 64;
    const std::uint64_t calls = disk.calls();
    std::uint64_t torn = 0, whole = 0;
    for (std::uint64_t k = 1; k < 30; k++) {
        SimulatedFiles cut = disk;
        cut.cut_before(calls + k);
        Model cut_model = model;
        {
            FileStorage storage(options_on(cut, 2048));
            Recovered heard;
            if (storage.open(heard, owner) == Errc::ok) run(storage, cut_model, "aaaaaaf");
        }
        coord::Rng rng(k);
        for (const std::vector<bool>& kept : choices(cut.pending(), 8, rng)) {
            SimulatedFiles after = cut;
            after.cut_power(kept);
            Model left = cut_model;
            FileStorage storage(options_on(after, 2048));
            recover(storage, left);
            torn += storage.report().torn_bytes != 0, whole += storage.report().torn_bytes == 0;
            CHECK(storage.report().leftovers == 0);
            REQUIRE(run(storage, left, "aaf") == Errc::ok);  // shorter than what was torn
            recover(storage, left);
            CHECK(storage.report().torn_bytes == 0);
        }
    }
    CHECK(torn > 20);
    CHECK(whole > 20);
}

TEST_CASE("faults D1: the last flush cut off at each byte, with and without the mark's word") {
    Model model;
    const SimulatedFiles start = disk_after("aaf", model, 2048);
    SimulatedFiles after = start;
    {
        after.end_process();
        FileStorage storage(options_on(after, 2048));
        recover(storage, model);
        REQUIRE(run(storage, model, "aaaf") == Errc::ok);
    }
    const std::string path = path_in_data("log", 1);
    const Bytes old_bytes = start.contents(path), new_bytes = after.contents(path);
    const std::size_t end = new_bytes.find_last_not_of('\0') + 1;
    for (std::size_t cut = old_bytes.find_last_not_of('\0') + 1; cut <= end; cut++) {
        CAPTURE(cut);
        for (const bool is_shorter : {false, true}) {
            SimulatedFiles torn = start;
            Bytes bytes = new_bytes.substr(0, cut);
            if (!is_shorter) bytes.resize(new_bytes.size(), '\0');
            torn.set_contents(path, bytes);
            const Opened cut_off = open_damaged(torn, model);
            REQUIRE(cut_off.error == Errc::ok);
            REQUIRE(cut_off.last >= 2);
            REQUIRE(cut_off.last == (cut == end ? 5 : cut_off.last));
            REQUIRE((cut_off.report.torn_bytes == 0 || cut < end));
            REQUIRE(open_damaged(torn, model).report.torn_bytes == 0);

            SimulatedFiles known = after;
            known.set_contents(path, bytes);
            const SimulatedFiles untouched = known;
            const Opened damaged = open_damaged(known, model);
            REQUIRE(damaged.error == (cut == end ? Errc::ok : Errc::corrupt));
            if (cut == end) continue;
            REQUIRE(damaged.report.damaged_at == cut_off.last + 1);
            REQUIRE(damaged.report.last == cut_off.last);
            REQUIRE(have_same_files(known, untouched));
        }
    }
}

TEST_CASE("faults D15 D21, ZooKeeper A24: each byte of each file flipped: found out, or harmless") {
    Model model;
    const SimulatedFiles sound = disk_after("aafasfaaaaaafanfaaafaaf", model);
    REQUIRE(segments_on(sound).size() >= 2);
    std::size_t damaged = 0, passed_over = 0, harmless = 0;
    for (const std::string& path : sound.paths()) {
        CAPTURE(path);
        const Bytes bytes = sound.contents(path);
        for (std::size_t at = 0; at < bytes.size(); at++) {
            CAPTURE(at);
            const int own = static_cast<unsigned char>(bytes[at]);
            for (const int mask : {1 << (at % 8), 0xFF, own}) {
                if (mask == 0) continue;
                Bytes flipped = bytes;
                flipped[at] = static_cast<char>(flipped[at] ^ mask);
                SimulatedFiles disk = sound;
                disk.set_contents(path, flipped);
                const SimulatedFiles untouched = disk;
                const Opened opened = open_damaged(disk, model);
                if (opened.error == Errc::corrupt) {
                    damaged += 1;
                    REQUIRE(have_same_files(disk, untouched));
                    continue;
                }
                REQUIRE(opened.error == Errc::ok);
                REQUIRE(opened.last == model.items.size());  // nothing was served short
                passed_over += opened.report.snapshots_bad;
                harmless += opened.report.snapshots_bad == 0;
            }
        }
    }
    CHECK(damaged > 700);
    CHECK(passed_over > 200);
    CHECK(harmless > 1000);
}

static SimulatedFiles disk_without_mark(Model& model, std::size_t segment_bytes) {
    SimulatedFiles disk = disk_after("aafaafaaf", model, segment_bytes);
    disk.erase("data/mark");
    return disk;
}

static Opened open_with(SimulatedFiles disk, const std::string& path, const Bytes& bytes,
                        const Model& model) {
    disk.set_contents(path, bytes);
    return open_damaged(disk, model);
}

// The last frame knows that the first four were durable, however long the zeros before it are and
// wherever they begin.
TEST_CASE("S8: a witness behind zeros is found") {
    Model model;
    const SimulatedFiles sound = disk_without_mark(model, 2048);
    const std::string path = path_in_data("log", 1);
    const Bytes bytes = sound.contents(path);
    constexpr std::size_t head = 64, frame = 38, last = head + 5 * frame;
    for (std::size_t at = head; at < head + 4 * frame; at++) {
        CAPTURE(at);
        Bytes holed = bytes;
        holed.replace(at, last - at, last - at, '\0');
        const Opened opened = open_with(sound, path, holed, model);
        REQUIRE(opened.error == Errc::corrupt);
        CHECK(opened.report.damaged_at == (at - head) / frame + 1);
    }
}

TEST_CASE("S8: a witness is found wherever long zeros end") {
    Model model;
    const SimulatedFiles sound = disk_without_mark(model, 16384);
    const std::string path = path_in_data("log", 1);
    const Bytes bytes = sound.contents(path);
    constexpr std::size_t head = 64, frame = 38, last = head + 5 * frame, end = head + 2 * frame;
    for (std::size_t zeros = 4096 - 2 * frame; zeros < 4096 + 2 * frame; zeros++) {
        CAPTURE(zeros);
        Bytes moved(bytes.size(), '\0');
        moved.replace(0, end, bytes, 0, end);
        moved.replace(end + zeros, frame, bytes, last, frame);
        const Opened opened = open_with(sound, path, moved, model);
        REQUIRE(opened.error == Errc::corrupt);
        CHECK(opened.report.damaged_at == 3);
    }
}

TEST_CASE("faults D15 (S8): without the mark later frames are the witness of what was durable") {
    Model model;
    const SimulatedFiles sound = disk_without_mark(model, 2048);
    const std::string path = path_in_data("log", 1);
    const Bytes bytes = sound.contents(path);
    const std::size_t size = 64 + 6 * 38;
    for (std::size_t at = 0; at < size; at++) {
        CAPTURE(at);
        Bytes flipped = bytes;
        flipped[at] = static_cast<char>(flipped[at] ^ 1 << at % 8);
        SimulatedFiles disk = sound;
        disk.set_contents(path, flipped);
        const Opened opened = open_damaged(disk, model);
        if (at < size - 76) {
            REQUIRE(opened.error == Errc::corrupt);
            CHECK(opened.report.damaged_at == (at < 64 ? 1 : (at - 64) / 38 + 1));
        } else {  // of the last flush nothing tells whether it had returned
            REQUIRE(opened.error == Errc::ok);
            CHECK(opened.last == (at - 64) / 38);
            CHECK(opened.report.torn_bytes > 0);
        }
    }
}

TEST_CASE("faults D15 D18, ZooKeeper A24: sectors zeroed, stale or written to the wrong place") {
    Model model;
    const SimulatedFiles sound = disk_after("aaaaafaaaaafaaafaaaf", model);
    std::size_t damaged = 0;
    for (const std::string& path : segments_on(sound)) {
        const Bytes bytes = sound.contents(path);
        for (std::size_t to = 0; to + 64 <= bytes.size(); to += 32) {
            for (std::size_t from = 0; from + 64 <= bytes.size() + 64; from += 32) {
                Bytes moved = bytes;
                const bool is_zeroed = from + 64 > bytes.size();
                moved.replace(to, 64, is_zeroed ? Bytes(64, '\0') : bytes.substr(from, 64));
                SimulatedFiles disk = sound;
                disk.set_contents(path, moved);
                const Opened opened = open_damaged(disk, model);
                damaged += opened.error == Errc::corrupt;
                if (opened.error == Errc::ok) REQUIRE(opened.last == model.items.size());
            }
        }
    }
    CHECK(damaged > 200);
}

TEST_CASE("faults D4 D5: each kind of call fails once, at each time: final, and nothing is lost") {
    std::size_t failures = 0;
    for (const Call call : {Call::open, Call::size, Call::read, Call::write, Call::allocate,
                            Call::sync, Call::rename, Call::remove, Call::list, Call::lock,
                            Call::names}) {
        for (const bool is_born : {false, true}) {
            for (std::uint64_t k = 1; k < 100; k++) {
                CAPTURE(static_cast<int>(call));
                CAPTURE(k);
                Model model;
                SimulatedFiles disk;
                if (is_born) disk = disk_after("aafasfaAf", model);
                disk.end_process();
                disk.fail(call, k);
                bool has_failed = false;
                {
                    FileStorage storage(options_on(disk));
                    Recovered heard;
                    has_failed = storage.open(heard, owner) != Errc::ok ||
                                 run(storage, model, "aafsfafAfaasfnf") != Errc::ok;
                    if (has_failed) {
                        failures += 1;
                        CHECK(storage.health() == Errc::storage_failed);
                        CHECK_FALSE(storage.reason().empty());
                        const std::uint64_t calls = disk.calls();
                        CHECK(storage.append("x") == Errc::storage_failed);
                        CHECK(storage.flush() == Errc::storage_failed);
                        CHECK(storage.begin_snapshot() == Errc::storage_failed);
                        CHECK(disk.calls() == calls);  // S9
                    }
                }
                disk.stop_failing();
                coord::Rng rng(k);
                std::vector<bool> kept(disk.pending());
                for (std::size_t i = 0; i < kept.size(); i++) kept[i] = rng.chance(500);
                SimulatedFiles cut = disk;
                cut.cut_power(kept);
                expect_sound(cut, model);
                disk.end_process();
                expect_sound(disk, model);
                if (!has_failed) break;
            }
        }
    }
    CHECK(failures > 60);
}

TEST_CASE("faults D7: what an open handed over does not vanish at the next power cut") {
    std::size_t more = 0;
    for (std::uint64_t k = 1; k < 60; k++) {
        CAPTURE(k);
        SimulatedFiles disk;
        disk.cut_before(k);
        Model model;
        {
            FileStorage storage(options_on(disk));
            Recovered heard;
            if (storage.open(heard, owner) == Errc::ok) run(storage, model, "aafsfaafAaf");
        }
        disk.restore_power();
        SimulatedFiles alive = disk;
        alive.end_process();
        const Sequence promised = model.durable;
        {
            FileStorage storage(options_on(alive));
            recover(storage, model);
            more += model.durable > promised;
        }
        alive.cut_power(std::vector<bool>(alive.pending(), false));
        FileStorage storage(options_on(alive));
        recover(storage, model);
    }
    CHECK(more > 0);
}

TEST_CASE("faults D8 D9: after flush neither the last segment's name nor a snapshot's is lost") {
    Model model;
    SimulatedFiles disk = disk_after("aaaaaaaafAfasfaafrf", model);
    disk.cut_power(std::vector<bool>(disk.pending(), false));
    FileStorage storage(options_on(disk));
    recover(storage, model);
    CHECK(model.durable == 14);
}

TEST_CASE("faults D10 D12: segments and snapshots that come back are seen and removed again") {
    Model model;
    const SimulatedFiles early = disk_after("aaafasfaaaaaafaaaaaafanfaaaaf", model);
    SimulatedFiles late = early;
    {
        late.end_process();
        FileStorage storage(options_on(late));
        recover(storage, model);
        REQUIRE(run(storage, model, "aaaasfaaaaaaasfaaaaaaasfaaf") == Errc::ok);
    }
    std::size_t back = 0;
    for (const std::string& path : early.paths()) {
        if (late.exists(path) || path.find("spare.") != std::string::npos) continue;
        CAPTURE(path);
        SimulatedFiles disk = late;
        disk.set_contents(path, early.contents(path));
        const Opened opened = open_damaged(disk, model);
        REQUIRE(opened.error == Errc::ok);
        CHECK(opened.lines == model.lines(model.items.size()));
        CHECK_FALSE(disk.exists(path));
        back += path.find("log.") != std::string::npos;
        expect_sound(disk, model);
    }
    CHECK(back >= 2);
    CHECK(segments_on(late).size() <= 5);
}

TEST_CASE("faults D13 D14: a full disk: no snapshot, no room, nothing lost; then there is room") {
    std::size_t refused = 0, given_up = 0, no_room = 0;
    for (std::uint64_t capacity = 0; capacity < 6000; capacity += 50) {
        CAPTURE(capacity);
        SimulatedFiles disk;
        disk.capacity = capacity;
        Model model;
        {
            FileStorage storage(options_on(disk));
            Recovered heard;
            const Errc opened = storage.open(heard, owner);
            if (opened != Errc::ok) {
                CHECK(opened == Errc::storage_full);
                refused += 1;
            }
            for (int i = 0; opened == Errc::ok && i < 40; i++) {
                const char* const script = i % 4 == 3 ? "sf" : i % 9 == 5 ? "Af" : "af";
                const Errc error = run(storage, model, script);
                REQUIRE((error == Errc::ok || error == Errc::storage_full));
                REQUIRE(storage.health() == Errc::ok);
                given_up += error == Errc::storage_full && i % 4 == 3;
                no_room += !storage.has_room();
            }
            disk.capacity = UINT64_MAX;
            for (int i = 0; opened == Errc::ok && i < 70; i++) {
                REQUIRE(storage.flush() == Errc::ok);
            }
            CHECK(storage.has_room());
            if (opened == Errc::ok) REQUIRE(run(storage, model, "aafAfsfaf") == Errc::ok);
        }
        SimulatedFiles cut = disk;
        cut.cut_power(std::vector<bool>(cut.pending(), false));
        expect_sound(cut, model);
        disk.end_process();
        expect_sound(disk, model);
    }
    CHECK(refused > 5);
    CHECK(given_up > 20);
    CHECK(no_room > 100);
}

// The replica refuses writes then, so that nothing is appended: its storage has to be asked all the
// same.
TEST_CASE("faults D14: a replica alone, full and idle, finds out that there is room again") {
    SimulatedFiles disk;
    disk.capacity = 3000;
    FileStorage storage(options_on(disk));
    coord::Replica replica({}, storage);
    coord::Time now;
    const auto pump = [&] {
        now = now + coord::milliseconds(1);
        return replica.poll(now), now < coord::Time{} + coord::seconds(10);
    };
    coord::Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
    REQUIRE(session);
    const coord::Sync zk(*session, pump);
    Errc error = zk.create("/a", "").error();
    for (int i = 0; i < 100 && error == Errc::ok; i++) error = zk.set("/a", "value").error();
    REQUIRE(error == Errc::storage_full);
    for (int i = 0; i < 1000; i++) pump();
    CHECK(zk.set("/a", "value").error() == Errc::storage_full);
    disk.capacity = UINT64_MAX;
    for (int i = 0; i < 1000 && !storage.has_room(); i++) pump();
    CHECK(zk.set("/a", "last"));
    CHECK(zk.get("/a")->bytes == "last");
}

TEST_CASE("faults D16, ZooKeeper A23 A25: what is there without its rest has a defined result") {
    Model model;
    const SimulatedFiles sound = disk_after("aaafsfaaaaaaaaaafaaaaaaaaaaaf", model);
    const std::vector<std::string> segments = segments_on(sound);
    REQUIRE(segments.size() >= 3);
    const std::string snapshot = path_in_data("snapshot", 4);
    const auto with = [&](auto change) {
        SimulatedFiles disk = sound;
        change(disk);
        return open_damaged(disk, model);
    };
    Opened opened = with([&](SimulatedFiles& d) {
        for (const std::string& path : segments) d.erase(path);
    });
    CHECK(opened.error == Errc::corrupt);
    CHECK(opened.report.damaged_at == 1);
    CHECK(opened.reason.find("the log is missing") != Bytes::npos);
    opened = with([&](SimulatedFiles& d) { d.erase(segments.front()); });
    CHECK(opened.error == Errc::corrupt);
    CHECK(opened.reason.find("records before it are missing") != Bytes::npos);
    CHECK(opened.lines.empty());
    opened = with([&](SimulatedFiles& d) { d.erase(segments[1]); });
    CHECK(opened.error == Errc::corrupt);
    CHECK(opened.report.last + 1 == opened.report.damaged_at);
    CHECK_FALSE(opened.lines.empty());
    opened = with([&](SimulatedFiles& d) { d.erase(segments.back()); });
    CHECK(opened.error == Errc::corrupt);
    opened = with([&](SimulatedFiles& d) { d.erase("data/mark"); });
    CHECK(opened.error == Errc::ok);
    CHECK(opened.last == model.items.size());
    opened = with([&](SimulatedFiles& d) { d.erase(snapshot); });  // the whole log stands for it
    CHECK(opened.error == Errc::ok);
    CHECK(opened.report.snapshots_bad == 1);
    CHECK(opened.report.first == 1);
    for (const std::string& path : sound.paths()) {                // an empty file
        CAPTURE(path);
        opened = with([&](SimulatedFiles& d) { d.set_contents(path, ""); });
        const bool is_log = path.find("log.") != std::string::npos;
        CHECK(opened.error == (is_log ? Errc::corrupt : Errc::ok));
    }
    opened = with([&](SimulatedFiles& d) {                         // newer than the log
        d.set_contents(path_in_data("snapshot", 99), d.contents(snapshot));
        d.set_contents("data/snapshot.tmp", "half");
    });
    CHECK(opened.error == Errc::ok);
    CHECK(opened.report.leftovers == 2);
}

TEST_CASE("faults D17: an older snapshot is read before it counts, and what is damaged does not") {
    const std::string made = "aafsfaafsfaafsfaf", one_more = "aafsfafaf";  // at 3, 6 and 9, and 14
    for (const std::string harm : {"nothing", "a byte", "no file", "no reading"}) {
        CAPTURE(harm);
        Model model;
        SimulatedFiles disk = disk_after(made, model);
        disk.end_process();
        FileStorageOptions options = options_on(disk);
        options.purge_interval = coord::seconds(1);
        FileStorage storage(options);
        Bytes bytes = disk.contents(path_in_data("snapshot", 6));
        bytes[70] ^= 1;
        if (harm == "a byte") disk.set_contents(path_in_data("snapshot", 6), bytes);
        recover(storage, model);
        CHECK(storage.report().snapshot == 9);
        CHECK(storage.report().snapshots_sound == 1);      // the others were not read
        CHECK(storage.report().snapshots_bad == 0);
        if (harm == "no file") disk.erase(path_in_data("snapshot", 6));
        if (harm == "no reading") disk.fail(Call::read, 1);
        storage.set_time(coord::Time{} + coord::seconds(2));
        REQUIRE(run(storage, model, one_more) == Errc::ok);
        CHECK(storage.health() == Errc::ok);
        CHECK(storage.report().snapshots_bad == (harm == "nothing" ? 0 : 1));
        CHECK(disk.exists(path_in_data("snapshot", 3)) == (harm != "nothing"));
        CHECK(disk.exists(path_in_data("log", 1)));        // the segment that 4 is in
        disk.end_process();
        expect_sound(disk, model);
    }
}

TEST_CASE("a snapshot that a newer version has written is left as it is") {
    Model model;
    const SimulatedFiles sound = disk_after("aafsfaafsfaf", model);
    const std::string path = path_in_data("snapshot", 6);
    Bytes bytes = sound.contents(path);
    Bytes check;
    bytes[11] = static_cast<char>(bytes[11] + 1);  // the version; then the header's checksum
    coord::Writer(check).u32(coord::crc32c(BytesView(bytes).substr(0, 60)));
    bytes.replace(60, 4, check);
    const Opened opened = open_with(sound, path, bytes, model);
    CHECK(opened.error == Errc::corrupt);
    CHECK(opened.reason.find("written by another coord") != Bytes::npos);
    SimulatedFiles disk = sound;
    disk.set_contents(path, bytes);
    FileStorage storage(options_on(disk));
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::corrupt);
    CHECK(storage.start_over(7) == Errc::corrupt);  // it is none of ours to set aside
    CHECK(disk.contents(path) == bytes);
}

static std::size_t count_kept(const SimulatedFiles& disk) {  // segments, snapshots and spares
    std::size_t count = 0;
    for (const std::string& path : disk.paths()) {
        count += path.find("/log.") != std::string::npos;
        count += path.find("/snapshot.") != std::string::npos;
        count += path.find("/spare.") != std::string::npos;
    }
    return count;
}

static void make_large_snapshot(FileStorage& storage) {
    REQUIRE(storage.begin_snapshot() == Errc::ok);
    REQUIRE(storage.write_snapshot(Bytes(3 * 64 * 1024, 'x')) == Errc::ok);
    REQUIRE(storage.end_snapshot(storage.appended() + 1, false) == Errc::ok);
    REQUIRE(storage.flush() == Errc::ok);
}

static SimulatedFiles disk_with_large_snapshots(int count) {
    SimulatedFiles disk;
    {
        FileStorage storage(options_on(disk));
        Recovered heard;
        REQUIRE(storage.open(heard, owner) == Errc::ok);
        for (int i = 0; i < count; i++) make_large_snapshot(storage);
    }
    disk.end_process();
    return disk;
}

TEST_CASE("an older snapshot is read by pieces, one in each flush") {
    SimulatedFiles disk = disk_with_large_snapshots(2);
    FileStorage storage(options_on(disk));
    Recovered heard;
    const auto open_again = [&] {
        heard = Recovered();
        REQUIRE(storage.open(heard, owner) == Errc::ok);
        CHECK(storage.report().snapshots_sound == 1);
    };
    storage.check_snapshots();             // nothing is open
    open_again();
    for (int i = 0; i < 2; i++) {          // a header, and so four pieces; open has read one
        REQUIRE(storage.flush() == Errc::ok);
        CHECK(storage.report().snapshots_sound == 1);
    }
    REQUIRE(storage.flush() == Errc::ok);
    CHECK(storage.report().snapshots_sound == 2);
    open_again();
    REQUIRE(storage.flush() == Errc::ok);  // one piece; and then all that are left
    storage.check_snapshots();
    CHECK(storage.report().snapshots_sound == 2);
    storage.check_snapshots();             // there is nothing left
    CHECK(storage.report().snapshots_sound == 2);
}

TEST_CASE("an older snapshot is read at once where there is no space") {
    SimulatedFiles disk = disk_with_large_snapshots(2);
    FileStorageOptions options = options_on(disk);
    options.purge_interval = coord::seconds(1);
    FileStorage storage(options);
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    disk.capacity = 0;
    for (const std::string& path : disk.paths()) disk.capacity += disk.contents(path).size();
    for (int i = 0; i < 100 && storage.has_room(); i++) {
        static_cast<void>(storage.append(Bytes(300, 'a')));
        REQUIRE(storage.flush() == Errc::ok);
    }
    REQUIRE_FALSE(storage.has_room());
    CHECK(storage.report().snapshots_sound == 1);
    REQUIRE(storage.flush() == Errc::ok);
    CHECK(storage.report().snapshots_sound == 2);
}

TEST_CASE("a snapshot that becomes needless while it is read is closed") {
    SimulatedFiles disk = disk_with_large_snapshots(3);
    FileStorage storage(options_on(disk));
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    for (int i = 0; i < 2; i++) make_large_snapshot(storage);
    CHECK(storage.report().snapshots_sound == 1);  // of the second it has read some
    CHECK(storage.report().snapshots_bad == 0);
    CHECK_FALSE(disk.exists(path_in_data("snapshot", 2)));
    CHECK(disk.open_without_name() == 0);
}

TEST_CASE("lives that are too short to read what they need not do not fill the disk") {
    SimulatedFiles disk = disk_with_large_snapshots(3);
    const std::size_t before = count_kept(disk);
    for (int life = 0; life < 20; life++) {
        FileStorage storage(options_on(disk));
        Recovered heard;
        REQUIRE(storage.open(heard, owner) == Errc::ok);
        make_large_snapshot(storage);
        disk.end_process();
    }
    CHECK(count_kept(disk) <= before + 4);
}

TEST_CASE("purge_interval: nor do they where it is purged at times") {
    SimulatedFiles disk = disk_with_large_snapshots(3);
    FileStorageOptions options = options_on(disk);
    options.purge_interval = coord::seconds(60);
    const std::size_t before = count_kept(disk);
    for (int life = 0; life < 20; life++) {
        FileStorage storage(options);
        Recovered heard;
        REQUIRE(storage.open(heard, owner) == Errc::ok);
        storage.set_time(coord::Time{} + coord::seconds(1000 * life));
        make_large_snapshot(storage);
        disk.end_process();
    }
    CHECK(count_kept(disk) <= before + 4);
}

TEST_CASE("faults D17: a snapshot that is longer than its marker says is not read to its end") {
    SimulatedFiles disk = disk_with_large_snapshots(2);
    const std::string path = path_in_data("snapshot", 1);
    disk.set_contents(path, disk.contents(path) + Bytes(10 * 64 * 1024, 'x'));
    FileStorage storage(options_on(disk));
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    for (int i = 0; i < 3; i++) REQUIRE(storage.flush() == Errc::ok);
    CHECK(storage.report().snapshots_bad == 1);
}

// A file that is called segment 0 would seem to reach up to the last number that there is, and to
// have every snapshot in it.
TEST_CASE("faults D16: a file with the name of a segment that is never written is none of ours") {
    Model model;
    const SimulatedFiles sound = disk_after("aaaaaaaaaafnfaaf", model);  // 11 is in segment 11
    const std::string zero = path_in_data("log", 0);
    for (const Bytes& bytes : {Bytes(), sound.contents(path_in_data("log", 11))}) {
        SimulatedFiles disk = sound;
        disk.set_contents(zero, bytes);
        Opened opened = open_damaged(disk, model);
        CHECK(opened.error == Errc::ok);
        CHECK(opened.lines == model.lines(model.items.size()));
        disk = sound;
        disk.set_contents(zero, bytes);
        disk.erase(path_in_data("log", 1));  // which has record 10, that the snapshot needs
        opened = open_damaged(disk, model);
        CHECK(opened.error == Errc::corrupt);
        CHECK(opened.report.damaged_at == 1);
        CHECK(disk.contents(zero) == bytes);
    }
    // There is no number after the last, and nobody has come half as far.
    for (const char* const kind : {"log", "snapshot", "spare"}) {
        SimulatedFiles disk = sound;
        disk.set_contents(path_in_data(kind, UINT64_MAX), "something");
        const Opened opened = open_damaged(disk, model);
        CHECK(opened.error == Errc::ok);
        CHECK(opened.lines == model.lines(model.items.size()));
        CHECK(disk.exists(path_in_data(kind, UINT64_MAX)));
        expect_sound(disk, model);
    }
}

TEST_CASE("faults D17: a bad newest snapshot: an older one, a longer log; or else damage") {
    Model model;
    SimulatedFiles disk = disk_after("aafsfaafsfaafsfaf", model);
    Bytes bytes = disk.contents(path_in_data("snapshot", 9));
    bytes[70] ^= 1;
    disk.set_contents(path_in_data("snapshot", 9), bytes);
    Opened opened = open_damaged(disk, model);
    CHECK(opened.error == Errc::ok);
    CHECK(opened.report.snapshot == 6);
    CHECK(opened.report.snapshots_bad == 1);
    CHECK(opened.report.snapshots_sound == 2);
    CHECK(opened.last == model.items.size());

    bytes[70] ^= 1;
    for (std::size_t at = 0; at < 64; at++) {  // the header's bytes are no better than the others
        CAPTURE(at);
        bytes[at] ^= 1;
        disk.set_contents(path_in_data("snapshot", 9), bytes);
        bytes[at] ^= 1;
        opened = open_damaged(disk, model);
        CHECK(opened.error == Errc::ok);
        CHECK(opened.report.snapshot == 6);
        CHECK(opened.report.snapshots_bad == 1);
    }

    Model replaced;
    disk = disk_after("aafsfaafrfaf", replaced);
    bytes = disk.contents(path_in_data("snapshot", 6));
    bytes[70] ^= 1;
    disk.set_contents(path_in_data("snapshot", 6), bytes);
    opened = open_damaged(disk, replaced);
    CHECK(opened.error == Errc::corrupt);
    CHECK(opened.report.damaged_at == 6);
}

TEST_CASE("ZooKeeper A25: three sound snapshots are kept, with their log; segments are reused") {
    Model model;
    SimulatedFiles disk;
    FileStorage storage(options_on(disk));
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    for (int i = 0; i < 50; i++) {
        REQUIRE(run(storage, model, "aaaaafaaaafsf") == Errc::ok);
        std::size_t snapshots = 0, spares = 0;
        for (const std::string& path : disk.paths()) {
            snapshots += path.find("snapshot.") != std::string::npos;
            spares += path.find("spare.") != std::string::npos;
        }
        CHECK(snapshots <= 3);
        CHECK(spares >= 1);
        CHECK(spares <= 2);
        CHECK(segments_on(disk).size() <= 6);
        recover(storage, model);
        CHECK(model.durable == model.items.size());
        CHECK(storage.report().torn_bytes == 0);  // S5: what a segment held before is no tear
        CHECK(storage.report().leftovers == 0);
    }
    for (Sequence bad : {model.items.size(), model.items.size() - 10}) {
        Bytes bytes = disk.contents(path_in_data("snapshot", bad));
        bytes.back() ^= 1;
        disk.set_contents(path_in_data("snapshot", bad), bytes);
    }
    const Opened opened = open_damaged(disk, model);
    CHECK(opened.error == Errc::ok);
    CHECK(opened.report.snapshot == model.items.size() - 20);
}

// A disk that an owner with many snapshots to keep has left, with files that nothing needs now.
static SimulatedFiles disk_with_needless_files(Model& model, int snapshots) {
    SimulatedFiles disk;
    FileStorageOptions options = options_on(disk);
    options.snapshots_kept = 1000;
    FileStorage storage(options);
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::ok);
    for (int i = 0; i < snapshots; i++) {
        REQUIRE(run(storage, model, "aaaaaaaafaaaaaaaafsf") == Errc::ok);
    }
    return disk;
}

TEST_CASE("needless files go a few at a time, faster than new ones are made") {
    Model model;
    SimulatedFiles disk = disk_with_needless_files(model, 20);
    disk.end_process();
    const std::size_t before = count_kept(disk);
    REQUIRE(before > 50);
    FileStorage storage(options_on(disk));
    recover(storage, model);
    CHECK(count_kept(disk) + 1 >= before);
    std::size_t flushes = 0;
    for (std::size_t kept = before; kept > 12; flushes++) {
        REQUIRE(flushes < 4 * before);
        // Records that each need a segment of their own are made as fast as they can be.
        const bool is_large = flushes < 10;
        REQUIRE(run(storage, model, is_large ? "AAAAsf" : flushes % 20 == 0 ? "sf" : "af") ==
                Errc::ok);
        const std::size_t left = count_kept(disk);
        CHECK(left + 2 >= kept);
        if (!is_large) CHECK(left <= kept);
        CHECK(left <= before);
        kept = left;
    }
    CHECK(flushes > 10);
    recover(storage, model);
    CHECK(storage.report().leftovers == 0);
    storage.check_snapshots();
    CHECK(storage.report().snapshots_sound == 3);
}

TEST_CASE("T1 D10 a power cut before each call while needless files go") {
    Model model;
    SimulatedFiles disk = disk_with_needless_files(model, 5);
    disk.end_process();
    std::size_t count = 0, seen = 0;
    cut_everywhere(disk, model, "afafafafaf", 4, [&](const SimulatedFiles& cut, const Model& left) {
        if (seen++ % 3 != 0) return;
        count += 1;
        expect_sound(cut, left);
    });
    CHECK(count > 100);
}

TEST_CASE("a flush with nothing to write removes what is needless, too: a full disk gets room") {
    Model model;
    SimulatedFiles disk = disk_with_needless_files(model, 12);
    disk.end_process();
    const std::size_t before = count_kept(disk);
    disk.capacity = 0;
    for (const std::string& path : disk.paths()) disk.capacity += disk.contents(path).size();
    FileStorage storage(options_on(disk));
    recover(storage, model);
    for (int i = 0; i < 30; i++) REQUIRE(storage.flush() == Errc::ok);
    CHECK(count_kept(disk) + 20 < before);
}

TEST_CASE("purge_interval: what is needless goes once in that time, and all of it") {
    Model model;
    SimulatedFiles disk = disk_with_needless_files(model, 12);
    disk.end_process();
    FileStorageOptions options = options_on(disk);
    options.purge_interval = coord::seconds(60);
    FileStorage storage(options);
    recover(storage, model);
    const std::size_t before = count_kept(disk);
    for (int i = 0; i < 20; i++) REQUIRE(run(storage, model, "f") == Errc::ok);
    CHECK(count_kept(disk) == before);        // nobody has told the time: none is too late
    coord::Time now = coord::Time{} + coord::seconds(1000000);
    storage.set_time(now);
    REQUIRE(run(storage, model, "f") == Errc::ok);
    CHECK(count_kept(disk) + 1 == before);
    for (int i = 0; i < 40; i++) REQUIRE(run(storage, model, "f") == Errc::ok);
    const std::size_t least = count_kept(disk);
    CHECK(least + 8 < before);                // the purge went on, though no time went by
    now = now + coord::seconds(60) - coord::nanoseconds(1);
    storage.set_time(now);
    for (int i = 0; i < 5; i++) {
        REQUIRE(run(storage, model, "aaaaaaaaaaaafsf") == Errc::ok);
    }
    const std::size_t most = count_kept(disk);
    CHECK(most >= least + 10);                // segments and snapshots
    storage.set_time(now + coord::nanoseconds(1));
    for (int i = 0; i < 20; i++) REQUIRE(run(storage, model, "f") == Errc::ok);
    CHECK(count_kept(disk) <= least + 2);
    recover(storage, model);
    storage.check_snapshots();
    CHECK(storage.report().snapshots_sound == 3);
}

TEST_CASE("purge_interval is not waited for where there is no space") {
    for (const bool is_snapshot : {false, true}) {
        CAPTURE(is_snapshot);
        Model model;
        SimulatedFiles disk = disk_with_needless_files(model, 12);
        disk.end_process();
        FileStorageOptions options = options_on(disk);
        options.purge_interval = coord::Duration{INT64_MAX};
        FileStorage storage(options);
        recover(storage, model);
        storage.set_time(coord::Time{} + coord::seconds(1));
        for (int i = 0; i < 20; i++) REQUIRE(run(storage, model, "f") == Errc::ok);
        const std::size_t before = count_kept(disk);
        CHECK(before > 20);
        disk.capacity = 0;
        for (const std::string& path : disk.paths()) disk.capacity += disk.contents(path).size();
        Errc error = Errc::ok;
        for (int i = 0; i < 40 && error == Errc::ok; i++) {
            error = run(storage, model, is_snapshot ? "sf" : "Af");
        }
        CHECK(error == Errc::storage_full);
        for (int i = 0; i < 40; i++) REQUIRE(run(storage, model, "f") == Errc::ok);
        CHECK(count_kept(disk) + 10 < before);
        CHECK(run(storage, model, "sf") == Errc::ok);
        CHECK(run(storage, model, "Af") == Errc::ok);
    }
}

TEST_CASE("purge_interval: a replica tells its storage the time of its polls") {
    SimulatedFiles disk;
    FileStorageOptions options = options_on(disk, 4096);
    options.purge_interval = coord::seconds(10);
    options.snapshots_kept = 1;
    FileStorage storage(options);
    coord::ReplicaOptions replica_options;
    replica_options.snapshot_every_entries = 20, replica_options.log_entries_kept = 0;
    coord::Replica replica(replica_options, storage);
    coord::Time now;
    const auto pump = [&] {
        now = now + coord::milliseconds(1);
        return replica.poll(now), now < coord::Time{} + coord::seconds(60);
    };
    coord::Result<coord::Session> session = coord::Sync::open(replica, {}, pump);
    REQUIRE(session);
    const coord::Sync zk(*session, pump);
    REQUIRE(zk.create("/a", ""));
    std::vector<coord::Time> purges;
    coord::Time removed;
    for (std::size_t last = 0; now < coord::Time{} + coord::seconds(35);) {
        now = now + coord::milliseconds(20);
        REQUIRE(zk.set("/a", coord::Bytes(100, 'v')));
        const std::size_t kept = count_kept(disk);
        const bool is_first = purges.empty() || now - removed > coord::seconds(1);
        if (kept < last && is_first) purges.push_back(now);
        if (kept < last) removed = now;
        last = kept;
    }
    REQUIRE(purges.size() >= 3);  // of the one at the start nothing is seen: one goes, one comes
    for (std::size_t i = 1; i < purges.size(); i++) {
        CHECK(purges[i] - purges[i - 1] > coord::milliseconds(9900));
        CHECK(purges[i] - purges[i - 1] < coord::milliseconds(10500));
    }
}

TEST_CASE("faults D24 (S8): a segment that changes while it is opened: all of it, or an error") {
    Model model;
    const SimulatedFiles sound = disk_after("aafaf", model);
    const std::string path = path_in_data("log", 1);
    const Bytes bytes = sound.contents(path);
    std::size_t refused = 0, too_late = 0;
    for (const char* const harm : {"empty", "short", "no header", "a later header"}) {
        CAPTURE(harm);
        Bytes changed = bytes;
        if (harm == std::string("empty")) changed.clear();
        if (harm == std::string("short")) changed.resize(30);
        if (harm == std::string("no header")) changed.replace(0, 64, 64, '\0');
        if (harm == std::string("a later header")) changed[28] = 1;  // a high byte of its sequence
        for (std::uint64_t k = 1; k < 40; k++) {
            CAPTURE(k);
            SimulatedFiles disk = sound;
            disk.end_process();
            disk.change_before(disk.calls() + k, path, changed);
            FileStorage storage(options_on(disk));
            Recovered heard;
            const Errc error = storage.open(heard, owner);
            REQUIRE((error == Errc::ok || error == Errc::corrupt));
            if (error == Errc::ok) CHECK(heard.lines == model.lines(model.items.size()));
            refused += error == Errc::corrupt, too_late += error == Errc::ok;
        }
    }
    CHECK(refused > 20);
    CHECK(too_late > 20);
}

TEST_CASE("faults D18: segments that were swapped, and files of another storage or ensemble") {
    Model model, other_model;
    const SimulatedFiles sound = disk_after("aaaaaafaaaaaafaaaaaaaaaaaf", model);
    const std::vector<std::string> segments = segments_on(sound);
    REQUIRE(segments.size() >= 3);
    SimulatedFiles disk = sound;
    disk.set_contents(segments[0], sound.contents(segments[1]));
    disk.set_contents(segments[1], sound.contents(segments[0]));
    CHECK(open_damaged(disk, model).error == Errc::corrupt);

    SimulatedFiles other;
    {
        FileStorage storage(options_on(other));
        Recovered heard;
        REQUIRE(storage.open(heard, {owner.ensemble, 999}) == Errc::ok);
        REQUIRE(run(storage, other_model, "aaaaaafaaaaaafaaaaaaaaaaaf") == Errc::ok);
    }
    for (const std::string& path : {segments[1], std::string("data/mark")}) {
        disk = sound;
        disk.set_contents(path, other.contents(path));
        const SimulatedFiles untouched = disk;
        const Opened opened = open_damaged(disk, model);
        CHECK(opened.error == Errc::corrupt);
        CHECK(opened.reason.find("belongs to another storage") != Bytes::npos);
        CHECK(have_same_files(disk, untouched));
    }
    disk = sound;
    disk.end_process();
    const SimulatedFiles untouched = disk;
    FileStorage storage(options_on(disk));
    Recovered heard;
    CHECK(storage.open(heard, {8, 1}) == Errc::corrupt);
    CHECK(storage.reason().find("belongs to another ensemble") != Bytes::npos);
    CHECK(heard.lines.empty());
    CHECK(have_same_files(disk, untouched));
}

// Under whatever name.
static bool has_contents(const SimulatedFiles& disk, const Bytes& contents) {
    for (const std::string& path : disk.paths()) {
        if (disk.contents(path) == contents) return true;
    }
    return false;
}

TEST_CASE("faults D19 (S10): what is damaged starts over: another id, nothing gone, no founder") {
    Model model;
    SimulatedFiles disk = disk_after("aaaaaafsaaaaafaaaaaaaaaaaf", model);
    const std::vector<std::string> segments = segments_on(disk);
    std::vector<Bytes> before;
    Bytes bad = disk.contents(segments.back());
    bad[100] = static_cast<char>(bad[100] ^ 1);
    disk.set_contents(segments.back(), bad);
    disk.end_process();
    for (const std::string& path : disk.paths()) {
        if (path.find("spare") == std::string::npos) before.push_back(disk.contents(path));
    }
    FileStorage storage(options_on(disk));
    Recovered heard;
    REQUIRE(storage.open(heard, owner) == Errc::corrupt);
    const std::uint64_t old = storage.id();
    CHECK(storage.may_found());
    REQUIRE(storage.start_over(77) == Errc::ok);
    CHECK(storage.id() != old);
    CHECK_FALSE(storage.may_found());
    CHECK(storage.health() == Errc::ok);
    CHECK(storage.appended() == 0);
    CHECK_FALSE(storage.report().damage.empty());  // what it was is still told
    for (const Bytes& contents : before) CHECK(has_contents(disk, contents));
    Model fresh;
    REQUIRE(run(storage, fresh, "aafsaf") == Errc::ok);
    const std::uint64_t id = storage.id();
    disk.end_process();
    FileStorage again(options_on(disk));
    recover(again, fresh);
    CHECK(again.id() == id);
    CHECK_FALSE(again.may_found());
    REQUIRE(again.start_over(77) == Errc::ok);  // of a sound one too, with the same entropy even
    CHECK(again.id() != id);
    for (const Bytes& contents : before) CHECK(has_contents(disk, contents));
}

TEST_CASE("S10 files that are not the owner's are not set aside") {
    Model model;
    SimulatedFiles disk = disk_after("aaf", model);
    disk.end_process();
    const SimulatedFiles untouched = disk;
    FileStorage storage(options_on(disk));
    Recovered heard;
    REQUIRE(storage.open(heard, {8, 1}) == Errc::corrupt);
    CHECK(storage.start_over(5) == Errc::corrupt);
    CHECK(have_same_files(disk, untouched));
}

TEST_CASE("S10 a power cut before each call of starting over: done, or to be done once more") {
    Model model;
    SimulatedFiles start = disk_after("aaaaaaafaaaaaaafaaaaaaaf", model);
    const std::vector<std::string> segments = segments_on(start);
    REQUIRE(segments.size() >= 3);
    Bytes bad = start.contents(segments[0]);
    bad[100] = static_cast<char>(bad[100] ^ 1);
    start.set_contents(segments[0], bad);
    start.end_process();
    const Bytes sound = start.contents(segments[1]);
    std::size_t count = 0, done = 0;
    coord::Rng rng(1);
    for (std::uint64_t k = 1;; k++) {
        CAPTURE(k);
        SimulatedFiles disk = start;
        disk.cut_before(disk.calls() + k);
        bool is_done = false;
        {
            FileStorage storage(options_on(disk));
            Recovered heard;
            const Errc opened = storage.open(heard, owner);
            REQUIRE(opened != Errc::ok);
            if (opened == Errc::corrupt) is_done = storage.start_over(77) == Errc::ok;
        }
        for (const std::vector<bool>& kept : choices(disk.pending(), 7, rng)) {
            SimulatedFiles after = disk;
            after.cut_power(kept);
            count += 1;
            FileStorage storage(options_on(after));
            Recovered heard;
            const Errc opened = storage.open(heard, owner);
            REQUIRE((opened == Errc::ok || opened == Errc::corrupt));
            if (is_done) REQUIRE(opened == Errc::ok);
            if (opened == Errc::corrupt) REQUIRE(storage.start_over(78) == Errc::ok);
            done += opened == Errc::ok ? 1u : 0u;
            if (opened == Errc::ok) REQUIRE(heard.lines.empty());
            REQUIRE_FALSE(storage.may_found());  // whatever survives: it does not look like new
            REQUIRE(storage.appended() == 0);
            REQUIRE(has_contents(after, bad));
            REQUIRE(has_contents(after, sound));
        }
        if (!disk.is_cut()) break;
    }
    CHECK(count > 100);
    CHECK(done > 0);
}

TEST_CASE("faults D18: a sound frame from another history breaks the chain") {
    Model model, other_model;
    SimulatedFiles disk = disk_after("af", model, 4096);
    SimulatedFiles other = disk;
    other_model = model;
    for (const bool is_other : {false, true}) {
        SimulatedFiles& at = is_other ? other : disk;
        Model& own = is_other ? other_model : model;
        at.end_process();
        FileStorage storage(options_on(at, 4096));
        recover(storage, own);
        for (const char* const record : {"one", "two", "three", "four"}) {
            const std::string text = std::string(is_other ? "B" : "A") + record;
            REQUIRE(storage.append(text) == Errc::ok);
            own.items.push_back({false, text, 0, false});
            REQUIRE(storage.flush() == Errc::ok);
        }
    }
    const std::string path = path_in_data("log", 1);
    const std::size_t two = 64 + 38 + 40, three = two + 40;
    Bytes bytes = disk.contents(path);
    REQUIRE(bytes.substr(three - 4, 4) == "Atwo");
    bytes.replace(two, 40, other.contents(path).substr(two, 40));
    disk.set_contents(path, bytes);
    const Opened opened = open_damaged(disk, model);
    CHECK(opened.error == Errc::corrupt);
    CHECK(opened.report.damaged_at == 3);
}

TEST_CASE("faults D3: a disk that lies about sync: what is lost was promised, the rest is sound") {
    std::size_t lost = 0, found_out = 0;
    for (std::uint64_t seed = 1; seed <= 50; seed++) {
        Model model;
        SimulatedFiles disk = disk_after("aafsfaf", model);
        disk.end_process();
        disk.sync_lies = true;
        {
            FileStorage storage(options_on(disk));
            recover(storage, model);
            REQUIRE(run(storage, model, "aafaafaaf") == Errc::ok);
        }
        coord::Rng rng(seed);
        std::vector<bool> kept(disk.pending());
        for (std::size_t i = 0; i < kept.size(); i++) kept[i] = rng.chance(500);
        disk.sync_lies = false;
        disk.cut_power(kept);
        const Opened opened = open_damaged(disk, model);
        found_out += opened.error == Errc::corrupt;
        lost += opened.error == Errc::ok && opened.last < model.items.size();
    }
    CHECK(lost > 0);
    CHECK(found_out > 0);
}

TEST_CASE("sync = false: a power cut loses what it likes, and is not taken for damage") {
    for (std::uint64_t seed = 1; seed <= 50; seed++) {
        Model model;
        SimulatedFiles disk = disk_after("aaf", model, 4096);
        disk.end_process();
        const Sequence before = model.durable;
        {
            FileStorageOptions options = options_on(disk, 4096);
            options.sync = false;
            FileStorage storage(options);
            recover(storage, model);
            REQUIRE(run(storage, model, "aafaafaaf") == Errc::ok);
        }
        coord::Rng rng(seed);
        std::vector<bool> kept(disk.pending());
        for (std::size_t i = 0; i < kept.size(); i++) kept[i] = rng.chance(500);
        disk.cut_power(kept);
        const Opened opened = open_damaged(disk, model);
        CHECK(opened.error == Errc::ok);
        CHECK(opened.last >= before);
    }
}

TEST_CASE("a body that looks like frames is a body") {
    Model model;
    SimulatedFiles disk = disk_after("aaf", model, 4096);
    const Bytes frames = disk.contents(path_in_data("log", 1)).substr(64, 76);
    SimulatedFiles other;                      // frames that a storage of another id would write
    {
        FileStorage storage(options_on(other, 4096));
        Recovered heard;
        REQUIRE(storage.open(heard, {owner.ensemble, 5}) == Errc::ok);
        Model other_model;
        REQUIRE(run(storage, other_model, "aafafafafaf") == Errc::ok);
    }
    disk.end_process();
    {
        FileStorage storage(options_on(disk, 4096));
        recover(storage, model);
        REQUIRE(storage.append(frames + other.contents(path_in_data("log", 1)).substr(64, 400)) ==
                Errc::ok);
        REQUIRE(storage.flush() == Errc::ok);
    }
    Bytes bytes = disk.contents(path_in_data("log", 1));
    bytes[140] ^= 1;                           // its own header is torn, its body is all there
    disk.set_contents(path_in_data("log", 1), bytes);
    disk.erase("data/mark");
    disk.end_process();
    FileStorage storage(options_on(disk, 4096));
    Recovered heard;
    CHECK(storage.open(heard, owner) == Errc::ok);
    CHECK(storage.appended() == 2);
    CHECK(storage.report().torn_bytes > 0);
}

TEST_CASE("random: lives that end in power cuts, crashes and faults, against the model") {
    for (std::uint64_t seed = support::seed_or(1); seed <= support::seed_or(1) + 60; seed++) {
        CAPTURE(seed);
        coord::Rng rng(seed);
        SimulatedFiles disk;
        disk.sector = std::size_t{64} << rng.below(4);
        if (rng.chance(300)) disk.sector = 4096;
        const std::uint64_t segment_bytes = 300 + rng.below(3000);
        Model model;
        for (int life = 0; life < 40; life++) {
            CAPTURE(life);
            if (rng.chance(700)) disk.cut_before(disk.calls() + 1 + rng.below(120));
            if (rng.chance(200)) {
                disk.fail(static_cast<Call>(rng.below(11)), 1 + rng.below(20),
                          rng.chance(500) ? Errc::storage_failed : Errc::storage_full);
            }
            disk.capacity = rng.chance(100) ? rng.below(60000) : UINT64_MAX;
            {
                FileStorageOptions options = options_on(disk, segment_bytes);
                options.snapshots_kept = 1 + static_cast<std::uint32_t>(rng.below(3));
                FileStorage storage(options);
                Recovered heard;
                const Errc opened = storage.open(heard, owner);
                REQUIRE(opened != Errc::corrupt);
                if (opened == Errc::ok) {
                    const Sequence last = storage.appended();
                    REQUIRE(last >= model.durable);
                    REQUIRE(last <= model.items.size());
                    model.items.resize(static_cast<std::size_t>(last)), model.durable = last;
                    const Lines expected = model.lines(last);
                    REQUIRE(heard.lines.size() == expected.size());
                    for (std::size_t i = 0; i < expected.size(); i++) {
                        if (!heard.lines[i].empty()) REQUIRE(heard.lines[i] == expected[i]);
                    }
                    std::string script;
                    const std::size_t steps = rng.below(40);
                    for (std::size_t i = 0; i < steps; i++) {
                        script += "aaaaaaffffAsnbr"[rng.below(rng.chance(100) ? 15 : 14)];
                    }
                    run(storage, model, script);
                }
            }
            if (rng.chance(600)) {
                std::vector<bool> kept(disk.pending());
                const auto chance = static_cast<std::uint32_t>(rng.below(1001));
                for (std::size_t i = 0; i < kept.size(); i++) kept[i] = rng.chance(chance);
                disk.cut_power(kept);
            } else {
                disk.end_process(), disk.stop_failing(), disk.restore_power();
            }
        }
        disk.capacity = UINT64_MAX;
        FileStorage storage(options_on(disk, segment_bytes));
        recover(storage, model);
    }
}

// -------------------------------------------------------------------------------------------------
// The files of this system

TEST_CASE("system: written, closed and read again") {
    const Scratch scratch("written");
    FileStorageOptions options = scratch.options();
    options.snapshot_directory = (scratch.path / "snapshots").string();
    Model model;
    std::uint64_t id = 0;
    for (int life = 0; life < 4; life++) {
        FileStorage storage(options);
        recover(storage, model);
        CHECK(storage.report().is_new == (life == 0));
        if (life == 0) id = storage.id();
        CHECK(storage.id() == id);
        CHECK(run(storage, model, "aaafAAAAsfAAAAnfaabAAAAAAf") == Errc::ok);
        CHECK(model.durable == model.items.size());
    }
    FileStorage storage(options);
    recover(storage, model);
    CHECK(storage.report().text().find("snapshot") != Bytes::npos);
}

TEST_CASE("faults T15, system: a second one on the directory is refused while the first is there") {
    const Scratch scratch("locked");
    Model model;
    {
        FileStorage first(scratch.options());
        recover(first, model);
        FileStorage second(scratch.options());
        Recovered heard;
        CHECK(second.open(heard, owner) == Errc::storage_locked);
        CHECK(second.reason().find("lock") != Bytes::npos);
        CHECK(run(first, model, "aaf") == Errc::ok);
    }
    FileStorage second(scratch.options());
    recover(second, model);
    CHECK(model.durable == 2);
}

#ifndef _WIN32
TEST_CASE("faults T15, system: a second process is refused until the first is killed") {
    const Scratch scratch("killed");
    int pipe_ends[2];
    REQUIRE(::pipe(pipe_ends) == 0);
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        FileStorage storage(scratch.options());
        Recovered heard;
        const bool is_open = storage.open(heard, owner) == Errc::ok &&
                             storage.append("a1") == Errc::ok && storage.flush() == Errc::ok;
        const char told = is_open ? 'y' : 'n';
        if (::write(pipe_ends[1], &told, 1) != 1) ::_exit(1);
        for (;;) ::pause();
    }
    char told = 0;
    REQUIRE(::read(pipe_ends[0], &told, 1) == 1);
    CHECK(told == 'y');
    FileStorage storage(scratch.options());
    Recovered heard;
    CHECK(storage.open(heard, owner) == Errc::storage_locked);
    CHECK(::kill(child, SIGKILL) == 0);
    CHECK(::waitpid(child, nullptr, 0) == child);
    ::close(pipe_ends[0]), ::close(pipe_ends[1]);
    Model model;
    model.items.push_back({false, "a1", 0, false}), model.durable = 1;
    recover(storage, model);
}
#endif

TEST_CASE("faults D24, system: a directory deleted, a file cut short by somebody else") {
    const Scratch scratch("deleted");
    Model model;
    {
        FileStorage storage(scratch.options());
        recover(storage, model);
        REQUIRE(run(storage, model, "AAAf") == Errc::ok);
        std::filesystem::resize_file(scratch.path / "log.0000000000000001", 1000);
    }
    {
        FileStorage storage(scratch.options());
        Recovered heard;
        CHECK(storage.open(heard, owner) == Errc::corrupt);
        CHECK(storage.report().damaged_at == 2);
        CHECK(heard.lines.size() == 1);
    }
#ifndef _WIN32  // which removes nothing that is open
    std::filesystem::remove_all(scratch.path);
    Model fresh;
    FileStorage storage(scratch.options());
    recover(storage, fresh);
    std::filesystem::remove_all(scratch.path);
    std::string script;
    for (int i = 0; i < 20; i++) script += "Af";
    CHECK(run(storage, fresh, script) == Errc::storage_failed);
    CHECK(storage.health() == Errc::storage_failed);
    CHECK_FALSE(storage.reason().empty());
#endif
}

TEST_CASE("system: each call of the port, where it works and where it fails") {
    const Scratch scratch("port");
    const auto files = coord::system_files();
    const std::string directory = scratch.path.string();
    using Mode = coord::Files::Mode;
    CHECK(files->open(directory + "/a", Mode::read).error() == Errc::no_node);
    CHECK(files->make_directory(directory + "/no/where") != Errc::ok);
    CHECK(std::string(files->error_text()) != "");
    REQUIRE(files->make_directory(directory) == Errc::ok);
    REQUIRE(files->make_directory(directory) == Errc::ok);
    CHECK(files->open(directory + "/a", Mode::read).error() == Errc::no_node);
    CHECK(files->open(directory + "/a", Mode::write).error() == Errc::no_node);
    coord::FileId file = files->open(directory + "/a", Mode::create).value();
    REQUIRE(files->allocate(file, 100000) == Errc::ok);
    CHECK(*files->size(file) == 100000);
    REQUIRE(files->write(file, 99999, "xyz") == Errc::ok);
    REQUIRE(files->sync(file) == Errc::ok);
    Bytes read = "> ";
    REQUIRE(files->read(file, 99998, 100, read) == Errc::ok);
    CHECK(read == Bytes("> \0xyz", 6));
    REQUIRE(files->read(file, 200000, 100, read) == Errc::ok);
    CHECK(read.size() == 6);
    files->close(file);
    REQUIRE(files->rename(directory + "/a", directory + "/b") == Errc::ok);
    CHECK(files->rename(directory + "/a", directory + "/b") != Errc::ok);
    REQUIRE(files->sync_directory(directory) == Errc::ok);
    std::vector<Bytes> names;
    REQUIRE(files->list(directory, names) == Errc::ok);
    CHECK(std::count(names.begin(), names.end(), "b") == 1);
    CHECK(files->list(directory + "/nowhere", names) != Errc::ok);
    file = files->open(directory + "/b", Mode::read).value();
    CHECK(files->write(file, 0, "x") != Errc::ok);
    files->close(file);
    file = files->open(directory + "/b", Mode::create).value();
    CHECK(*files->size(file) == 0);
    files->close(file);
    CHECK(files->remove(directory + "/b") == Errc::ok);
    CHECK(files->remove(directory + "/b") == Errc::ok);
    coord::Result<coord::FileId> lock = files->lock(directory + "/lock");
    REQUIRE(lock);
    CHECK(files->lock(directory + "/lock").error() == Errc::storage_locked);
    files->close(*lock);
    lock = files->lock(directory + "/lock");
    REQUIRE(lock);
    files->close(*lock);
}

}  // TEST_SUITE

#endif  // COORD_NO_FILES
