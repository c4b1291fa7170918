// Chapter 6: FileStorage, on the files of this system and on a disk that loses, tears and rots.

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "coord.hpp"
#include "simulated_disk.hpp"
#include "support.hpp"

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
using Call = SimulatedFiles::Call;
using Lines = std::vector<std::string>;

constexpr coord::StorageOwner owner{7, 12345};

struct Recovered final : coord::RecoverySink {
    Lines lines;
    Sequence snapshot = 0;
    std::uint64_t size = 0;
    void on_record(Sequence sequence, BytesView record) override {
        lines.push_back(std::to_string(sequence) + " " + Bytes(record));
    }
    void on_snapshot(Sequence sequence, BytesView, std::uint64_t bytes) override {
        lines.push_back("");
        snapshot = sequence, size = bytes;
    }
};

// What open tells: "1 text" for a record, "2 [text]" for a snapshot, of which all is read.
Lines lines_of(Storage& storage, Recovered& heard) {
    Lines lines = heard.lines;
    for (std::string& line : lines) {
        if (!line.empty()) continue;
        Bytes bytes;
        const auto size = static_cast<std::size_t>(heard.size) + 1;
        REQUIRE(storage.read_snapshot(heard.snapshot, 0, size, bytes) == Errc::ok);
        REQUIRE(bytes.size() + 1 == size);
        line = std::to_string(heard.snapshot) + " [" + bytes + "]";
    }
    return lines;
}

struct Item {
    bool is_snapshot = false;
    std::string text;
    Sequence first_needed = 0;
    bool replaces = false;
};

// What was appended, and how much of it must survive.
struct Model {
    std::vector<Item> items;       // of sequence 1 on
    Sequence durable = 0;

    // What an undamaged storage hands over that ends with `last`.
    Lines lines(Sequence last) const {
        Sequence newest = 0;
        for (Sequence s = 1; s <= last; s++) newest = items[s - 1].is_snapshot ? s : newest;
        return lines_from(newest, last);
    }
    Lines lines_from(Sequence snapshot, Sequence last) const {
        Lines out;
        for (Sequence s = snapshot == 0 ? 1 : items[snapshot - 1].first_needed; s <= last; s++) {
            const Item& item = items[s - 1];
            if (!item.is_snapshot) out.push_back(std::to_string(s) + " " + item.text);
            if (s == snapshot) out.push_back(std::to_string(s) + " [" + item.text + "]");
        }
        return out;
    }
};

// a append, A append a long one, f flush; a snapshot of all that is before it: s; one that needs
// the record before it too: n; one that replaces: r; one that is begun and left: b.
// RETURNS the first error, and stops there.
Errc run(Storage& storage, Model& model, const std::string& script) {
    for (const char step : script) {
        const Sequence next = storage.appended() + 1;
        std::string text = std::string(1, step) + std::to_string(next);
        Errc error = Errc::ok;
        if (step == 'f') {
            error = storage.flush();
        } else if (step == 'a' || step == 'A') {
            if (step == 'A') text.append(700, '+');
            error = storage.append(text);
            if (error == Errc::ok) model.items.push_back({false, text, 0, false});
        } else {
            const Sequence needed = step == 'n' && next > 1 ? next - 1 : next;
            text += " is a snapshot";
            error = storage.begin_snapshot();
            if (error == Errc::ok) error = storage.write_snapshot(text.substr(0, 3));
            if (error == Errc::ok) error = storage.write_snapshot(text.substr(3));
            if (error == Errc::ok && step != 'b') error = storage.end_snapshot(needed, step == 'r');
            if (error == Errc::ok && step != 'b') {
                model.items.push_back({true, text, needed, step == 'r'});
            }
        }
        REQUIRE(storage.appended() == model.items.size());
        REQUIRE(storage.durable() >= model.durable);
        REQUIRE(storage.durable() <= storage.appended());
        model.durable = storage.durable();
        if (error != Errc::ok) return error;
        if (step == 'f') REQUIRE(model.durable == storage.appended());
    }
    return Errc::ok;
}

FileStorageOptions options_on(SimulatedFiles& disk, std::uint64_t segment_bytes = 512) {
    FileStorageOptions options;
    options.directory = "data";
    options.segment_bytes = segment_bytes;
    options.files = &disk;
    return options;
}

// Opens, expects all that was durable and nothing that was not appended, and cuts the model to it.
void recover(FileStorage& storage, Model& model) {
    Recovered heard;
    const Errc opened = storage.open(heard, owner);
    INFO(storage.reason());
    REQUIRE(opened == Errc::ok);
    const Sequence last = storage.appended();
    REQUIRE(storage.durable() == last);
    REQUIRE(last >= model.durable);
    REQUIRE(last <= model.items.size());
    REQUIRE(lines_of(storage, heard) == model.lines(last));
    model.items.resize(static_cast<std::size_t>(last)), model.durable = last;
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

}  // namespace

TEST_SUITE("06 files") {

TEST_CASE("a power cut before each call, with every choice of what survives") {
    std::size_t count = 0;
    for (const char* const script : {"aafaf", "afAfaf", "aafsfaf", "afrafaf", "anfaabsafAf",
                                     "aaaaaafaaaaaafaaaaaaf", "asfafsfafsfafsfafaf"}) {
        CAPTURE(script);
        count += cut_everywhere(SimulatedFiles{}, Model{}, script, 7, expect_sound);
    }
    CHECK(count > 5000);
}

}  // TEST_SUITE

#endif  // COORD_NO_FILES
