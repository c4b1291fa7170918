// Chapter 12: what a replica says of itself - lines for a person, an object of JSON, numbers, and
// lines for a log. All of it only looks.

#include <doctest/doctest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "session_rig.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::Errc;
using coord::LogCode;
using coord::LogLevel;
using coord::LogLine;
using coord::Metric;
using coord::milliseconds;
using coord::PeerId;
using coord::Replica;
using coord::ReplicaOptions;
using coord::seconds;
using coord::Simulation;
using coord::SimulationOptions;
using coord::Sync;
using coord::Time;
using session_rig::Alone;

// Whether the text is one value of JSON in ASCII, and nothing else. Nests so deep at the most.
class JsonText {
public:
    explicit JsonText(BytesView text) : text_(text) {}
    bool is_sound() {
        std::vector<char> open;
        do {
            if (!value(open)) return false;
            while (!open.empty() && take(open.back())) open.pop_back();
            if (!open.empty() && !take(',')) return false;
            if (!open.empty() && open.back() == '}' && !key()) return false;
        } while (!open.empty());
        return at_ == text_.size();
    }

private:
    bool take(char wanted) {
        if (at_ >= text_.size() || text_[at_] != wanted) return false;
        at_ += 1;
        return true;
    }
    bool word(BytesView wanted) {
        if (text_.substr(at_, wanted.size()) != wanted) return false;
        at_ += wanted.size();
        return true;
    }
    bool string() {
        if (!take('"')) return false;
        for (; at_ < text_.size() && text_[at_] != '"'; at_++) {
            const char each = text_[at_];
            if (each < 0x20 || each > 0x7E) return false;
            if (each == '\\' && !word("\\u00")) return false;
        }
        return take('"');
    }
    bool key() { return string() && take(':'); }
    bool number() {
        const std::size_t from = at_;
        while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') at_ += 1;
        return at_ > from && (text_[from] != '0' || at_ == from + 1);
    }
    bool value(std::vector<char>& open) {  // down to the first that has none in it
        for (;;) {
            if (open.size() > 8) return false;
            if (take('{')) {
                if (take('}')) return true;
                open.push_back('}');
                if (!key()) return false;
            } else if (take('[')) {
                if (take(']')) return true;
                open.push_back(']');
            } else {
                return word("true") || word("false") || number() || string();
            }
        }
    }

    BytesView text_;
    std::size_t at_ = 0;
};

bool is_json(BytesView text) { return JsonText(text).is_sound(); }

bool has(const Bytes& text, BytesView part) { return text.find(part) != Bytes::npos; }

std::map<std::string, std::uint64_t> metrics_of(const Replica& replica) {
    std::map<std::string, std::uint64_t> values;
    replica.visit_metrics([&](const Metric& metric) {
        CHECK(values.count(metric.name) == 0);
        values[metric.name] = metric.value;
    });
    return values;
}

struct Heard final : coord::ReplicaObserver {
    struct Line {
        std::uint32_t from = 0;
        LogCode code{};
        LogLevel level{};
        Bytes text;
    };
    std::vector<Line> lines;
    void on_log(PeerId id, const LogLine& line) override {
        lines.push_back({id.value, line.code, line.level, Bytes(line.text)});
    }
    int count(LogCode code, std::uint32_t from = 0) const {
        int found = 0;
        for (const Line& line : lines) {
            found += line.code == code && (from == 0 || line.from == from) ? 1 : 0;
        }
        return found;
    }
    Bytes text(LogCode code, std::uint32_t from = 0) const {  // of the last one
        for (std::size_t i = lines.size(); i > 0; i--) {
            const Line& line = lines[i - 1];
            if (line.code == code && (from == 0 || line.from == from)) return line.text;
        }
        return "";
    }
};

struct Mute final : coord::Transport {
    void send(PeerId, BytesView) override {}
    std::size_t message_bytes_max() const override { return 64 * 1024; }
};

// A replica alone that somebody listens to.
struct Logging {
    coord::MemoryStorage disk;
    Mute transport;
    Heard heard;
    Replica replica;
    Time now{1000000000};
    explicit Logging(const ReplicaOptions& options = {})
        : replica(options, disk, transport, &heard) {}
    void poll(coord::Duration by = milliseconds(1), int times = 1) {
        for (int i = 0; i < times; i++) {
            now = now + by;
            replica.poll(now);
        }
    }
    Sync open() {
        auto pump = [this] { return poll(), true; };
        auto opened = Sync::open(replica, {}, pump);
        REQUIRE(opened);
        return Sync(*opened, pump);
    }
};

SimulationOptions of(std::uint32_t voters, std::uint32_t observers = 0) {
    SimulationOptions options;
    options.voters = voters, options.observers = observers;
    options.seed = support::seed_or(7);
    options.replica.ensemble = 99;
    return options;
}

// An ensemble that somebody listens to.
struct World {
    Simulation sim;
    Heard heard;
    explicit World(const SimulationOptions& options) : sim(options) {
        sim.set_observer(&heard);
        REQUIRE(sim.run_until([&] { return all_serve(); }, seconds(20)));
    }
    bool all_serve() {
        for (std::uint32_t id = 1; id <= sim.size(); id++) {
            if (!sim.is_running(id) || !sim.replica(id).status().serving) return false;
        }
        return true;
    }
    std::uint32_t leader() const { return sim.leader().value; }
    std::uint32_t follower() const { return leader() == 1 ? 2 : 1; }
};

}  // namespace

TEST_SUITE("12 insight") {

TEST_CASE("the reader of JSON here knows what is none") {
    for (const char* good : {"{}", "[]", "1", "{\"a\":[1,2,{\"b\":\"\\u001f\"}],\"c\":true}"}) {
        CHECK(is_json(good));
    }
    for (const char* bad : {"", "{", "{}}", "[1,]", "{\"a\"}", "{\"a\":1,}", "01", "\"\\x\"",
                            "\"\n\"", "{a:1}", "[1 2]", "[{]}", "\"\xC3\xA4\""}) {
        CAPTURE(bad);
        CHECK_FALSE(is_json(bad));
    }
}

TEST_CASE("a string of JSON is one whatever bytes it has") {
    Bytes all;
    for (int i = 0; i < 256; i++) all.push_back(static_cast<char>(i));
    Bytes out = "[";
    coord::append_json_text(all, out);
    out += "]";
    CHECK(is_json(out));
    CHECK(has(out, "\\u0000\\u0001"));
    CHECK(has(out, " !\\u0022#$"));
    CHECK(has(out, "[\\u005c]"));
    CHECK(has(out, "~\\u007f\\u0080"));
    CHECK(has(out, "\\u00ff\"]"));
    out.clear();
    coord::append_json_text("", out);
    CHECK(out == "\"\"");
}

TEST_CASE("state_json is JSON, and has all numbers, in every role") {
    World w(of(3, 1));
    w.sim.isolate(w.follower());
    const std::uint32_t cut = w.follower(), lead = w.leader();
    w.sim.run_for(seconds(3));
    for (std::uint32_t id = 1; id <= 4; id++) {
        const Replica& replica = w.sim.replica(id);
        const Bytes json = replica.state_json();
        CAPTURE(json);
        CHECK(is_json(json));
        CHECK(has(json, "\"id\":" + std::to_string(id) + ","));
        CHECK(has(json, "\"role\":\"" + Bytes(name(replica.status().role)) + "\""));
        CHECK(has(json, "\"voters\":[1,2,3]"));
        CHECK(has(json, "\"ensemble\":\"0000000000000063\""));
        CHECK(has(json, id == cut ? "\"serving\":false" : "\"serving\":true"));
        CHECK(has(json, "\"silent_ms\"") == (id == lead));
        for (const auto& [key, value] : metrics_of(replica)) {
            CHECK(has(json, "\"" + key + "\":" + std::to_string(value)));
        }
    }
}

TEST_CASE("a replica that has not been polled, or whose options are no good, says so") {
    coord::MemoryStorage disk;
    const Replica fresh({}, disk);
    CHECK(is_json(fresh.state_json()));
    CHECK(has(fresh.describe(), "LOOKING"));
    CHECK(has(fresh.describe(), "not been polled"));
    ReplicaOptions options;
    options.voters = {PeerId{1}, PeerId{1}};
    coord::MemoryStorage other;
    Mute mute;
    Heard heard;
    const Replica bad(options, other, mute, &heard);
    CHECK(is_json(bad.state_json()));
    CHECK(has(bad.describe(), "FAILED"));
    CHECK(has(bad.describe(), "voters must be"));
    CHECK(metrics_of(bad)["coord_failed"] == 1);
    REQUIRE(heard.lines.size() == 1);
    CHECK(heard.lines[0].code == LogCode::failed);
    CHECK(heard.lines[0].level == LogLevel::error);
    CHECK(has(heard.lines[0].text, "voters must be"));
}

TEST_CASE("names of metrics are each there once, stable, and plain") {
    Alone a;
    std::vector<std::string> names, again;
    const auto list = [&](std::vector<std::string>& into) {
        a.replica.visit_metrics([&](const Metric& metric) {
            into.push_back(metric.name);
            CHECK(*metric.help != 0);
        });
    };
    list(names);
    const Sync zk = a.open();
    REQUIRE(zk.create("/a", "1"));
    list(again);
    CHECK(names == again);
    CHECK(std::set<std::string>(names.begin(), names.end()).size() == names.size());
    for (const std::string& each : names) {
        CHECK(each.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos);
        CHECK((each.compare(0, 3, "zk_") == 0 || each.compare(0, 6, "coord_") == 0));
    }
    // As ZooKeeper's mntr has them.
    for (const char* each : {"zk_znode_count", "zk_watch_count", "zk_ephemerals_count",
                             "zk_approximate_data_size", "zk_outstanding_requests",
                             "zk_packets_received", "zk_packets_sent", "zk_global_sessions",
                             "zk_local_sessions", "zk_learners", "zk_synced_followers",
                             "zk_synced_observers", "zk_pending_syncs", "zk_proposal_count",
                             "zk_quorum_size", "zk_uptime"}) {
        CAPTURE(each);
        CHECK(std::set<std::string>(names.begin(), names.end()).count(each) == 1);
    }
}

TEST_CASE("metrics count what is there") {
    Alone a;
    const Sync zk = a.open();
    auto before = metrics_of(a.replica);
    REQUIRE(zk.create("/abc", "12345"));
    REQUIRE(zk.create("/e", "", coord::CreateMode::ephemeral));
    zk.session().get("/abc", [](const coord::WatchEvent&) {}, coord::OnData{});
    a.polls();
    auto after = metrics_of(a.replica);
    CHECK(after["zk_znode_count"] == before["zk_znode_count"] + 2);
    CHECK(after["zk_ephemerals_count"] == 1);
    CHECK(after["zk_watch_count"] == 1);
    CHECK(after["zk_approximate_data_size"] == before["zk_approximate_data_size"] + 4 + 5 + 2);
    CHECK(after["zk_packets_received"] == before["zk_packets_received"] + 3);
    CHECK(after["zk_packets_sent"] >= before["zk_packets_sent"] + 3);
    CHECK(after["zk_outstanding_requests"] == 0);
    CHECK(after["zk_proposal_count"] == before["zk_proposal_count"] + 2);
    CHECK(after["zk_global_sessions"] == 1);
    CHECK(after["coord_serving"] == 1);
    CHECK(after["coord_applied"] == a.replica.counters().applied);
    CHECK(after["zk_uptime"] > before["zk_uptime"]);
    for (int i = 0; i < 3; i++) zk.session().set("/abc", "6", {});
    CHECK(metrics_of(a.replica)["zk_outstanding_requests"] == 3);
    a.polls();
    CHECK(metrics_of(a.replica)["zk_outstanding_requests"] == 0);
}

TEST_CASE("T11 the bytes of paths and data are counted through every change") {
    Alone a;
    const Sync zk = a.open();
    const std::uint64_t empty = a.replica.tree().bytes();
    CHECK(empty == BytesView("//zookeeper/zookeeper/config/zookeeper/quota").size() +
                       a.replica.tree().find("/zookeeper/config")->data.size());
    REQUIRE(zk.create("/a", "123"));
    CHECK(a.replica.tree().bytes() == empty + 5);
    REQUIRE(zk.set("/a", "12345678901234567890123456789012345678901234567890"));
    CHECK(a.replica.tree().bytes() == empty + 52);
    REQUIRE(zk.set("/a", "1"));
    CHECK(a.replica.tree().bytes() == empty + 3);
    // A multi that fails puts back what it had changed.
    CHECK(zk.multi({coord::Op::set("/a", "1234"), coord::Op::create("/b", "1"),
                    coord::Op::create("/a", "")}).error == Errc::node_exists);
    CHECK(a.replica.tree().bytes() == empty + 3);
    CHECK(zk.multi({coord::Op::remove("/a"), coord::Op::create("/a/b", "")}).error ==
          Errc::no_node);
    CHECK(a.replica.tree().bytes() == empty + 3);
    REQUIRE(zk.remove("/a"));
    CHECK(a.replica.tree().bytes() == empty);
    a.replica.audit();
}

TEST_CASE("T11 a state that is loaded has the bytes that the one saved had") {
    ReplicaOptions options;
    options.snapshot_every_entries = 5;
    Logging a(options);
    std::uint64_t bytes = 0;
    {
        const Sync zk = a.open();
        for (int i = 0; i < 20; i++) {
            REQUIRE(zk.create("/n-", Bytes(static_cast<std::size_t>(i), 'x'),
                              coord::CreateMode::persistent_sequential));
        }
        a.poll(milliseconds(1), 50);
        bytes = a.replica.tree().bytes();
    }
    REQUIRE(a.replica.counters().snapshots_taken > 0);
    CHECK(a.heard.count(LogCode::snapshot_taken) ==
          static_cast<int>(a.replica.counters().snapshots_taken));
    Replica second(options, a.disk);
    for (int i = 0; i < 50; i++) second.poll(a.now = a.now + milliseconds(1));
    CHECK(second.tree().bytes() == bytes);
    second.audit();
}

TEST_CASE("describe says who is in step, and how far behind the others are") {
    World w(of(3, 1));
    const std::uint32_t cut = w.follower(), lead = w.leader();
    auto opened = Sync::open(w.sim.replica(lead), {}, w.sim.pump());
    REQUIRE(opened);
    const Sync zk(*opened, w.sim.pump());
    w.sim.isolate(cut);
    for (int i = 0; i < 5; i++) REQUIRE(zk.create("/n" + std::to_string(i), ""));
    w.sim.run_for(seconds(2));
    const Bytes leads = w.sim.replica(lead).describe();
    CAPTURE(leads);
    CHECK(has(leads, "replica " + std::to_string(lead) + ": LEADING, serves"));
    CHECK(has(leads, "2 of 3 in step; 1 observer\n"));
    CHECK(has(leads, "voter " + std::to_string(cut) + ": not in step"));
    CHECK(has(leads, ", 5 entries behind, silent for "));
    CHECK(has(leads, "observer 4: in step"));
    const Bytes looks = w.sim.replica(cut).describe();
    CAPTURE(looks);
    CHECK(has(looks, ": LOOKING, does not serve, for "));
    CHECK(has(looks, "\n  why      " + Bytes(w.sim.replica(cut).status().reason)));
    CHECK(has(w.sim.replica(4).describe(), ": OBSERVING " + std::to_string(lead) + ", serves"));
    auto numbers = metrics_of(w.sim.replica(lead));
    CHECK(numbers["zk_followers"] == 1);
    CHECK(numbers["zk_synced_followers"] == 1);
    CHECK(numbers["zk_synced_observers"] == 1);
    CHECK(numbers["zk_learners"] == 2);
    CHECK(numbers["zk_quorum_size"] == 3);
    CHECK(metrics_of(w.sim.replica(4))["zk_learners"] == 0);
}

TEST_CASE("of many observers some are shown, and all are counted") {
    World w(of(1, 20));
    const Bytes text = w.sim.replica(1).describe();
    std::size_t shown = 0;
    for (std::size_t at = text.find("observer "); at != Bytes::npos; shown += 1) {
        at = text.find("observer ", at + 1);
    }
    CHECK(shown == 16);
    CHECK(has(text, "20 observers\n"));
    CHECK(metrics_of(w.sim.replica(1))["zk_synced_observers"] == 20);
}

TEST_CASE("the log of a replica alone: it looks, leads, and is established") {
    Logging a;
    a.poll(milliseconds(1), 20);
    REQUIRE(a.heard.lines.size() >= 3);
    CHECK(a.heard.lines[0].code == LogCode::looks);
    CHECK(a.heard.lines[0].level == LogLevel::info);
    CHECK(a.heard.lines[0].text == "looks for a leader: it has just started");
    CHECK(a.heard.lines[1].code == LogCode::leads);
    CHECK(a.heard.lines[2].code == LogCode::established);
    CHECK(a.heard.lines[2].text == "leads epoch 1, committed up to 1.1");
    CHECK(a.heard.count(LogCode::admitted) == 1);
    CHECK(a.heard.count(LogCode::not_established) == 0);
    const std::size_t lines = a.heard.lines.size();
    a.poll(milliseconds(100), 1000);  // nothing happens, and nothing is said
    CHECK(a.heard.lines.size() == lines);
}

TEST_CASE("the log of an ensemble: followers come in step, fall silent and come back") {
    World w(of(3, 1));
    const std::uint32_t lead = w.leader(), cut = w.follower();
    w.sim.run_for(seconds(1));
    CHECK(w.heard.count(LogCode::peer_in_step, lead) == 2);
    CHECK(w.heard.count(LogCode::observers_changed, lead) == 1);
    CHECK(w.heard.text(LogCode::observers_changed, lead) == "1 observer");
    CHECK(w.heard.count(LogCode::established) == 1);
    CHECK(w.heard.count(LogCode::observes, 4) == 1);
    CHECK(w.heard.text(LogCode::follows, cut) == "follows " + std::to_string(lead));
    CHECK(has(w.heard.text(LogCode::in_step, cut), "is in step with " + std::to_string(lead)));
    w.heard.lines.clear();
    w.sim.isolate(cut);
    w.sim.run_for(seconds(2));
    CHECK(w.heard.count(LogCode::peer_silent, lead) == 1);
    CHECK(w.heard.text(LogCode::peer_silent) == std::to_string(cut) + " is silent, or not in step");
    CHECK(w.heard.count(LogCode::looks, cut) >= 1);
    CHECK(has(w.heard.text(LogCode::looks, cut), w.sim.replica(cut).status().reason));
    w.sim.heal();
    REQUIRE(w.sim.run_until([&] { return w.all_serve(); }, seconds(20)));
    w.sim.run_for(seconds(1));
    CHECK(w.heard.count(LogCode::peer_in_step, lead) == 1);
    CHECK(w.heard.count(LogCode::in_step, cut) == 1);
}

TEST_CASE("who wins an election and is not established says why") {
    World w(of(3));
    w.heard.lines.clear();
    const std::uint32_t lead = w.leader();
    w.sim.crash(lead);
    // Whoever leads next reaches nobody from then on.
    REQUIRE(w.sim.run_until([&] { return w.heard.count(LogCode::leads) == 1; }, seconds(20)));
    w.sim.isolate(w.heard.lines.back().from);
    w.sim.run_for(seconds(5));
    CHECK(w.heard.count(LogCode::not_established) >= 1);
    CHECK(w.heard.count(LogCode::established) == 0);
    CHECK(w.heard.text(LogCode::not_established).size() >
          BytesView("has not become the leader: ").size());
}

TEST_CASE("a flood is a line, and later one with the number of the others") {
    ReplicaOptions options;
    options.ensemble = 5;
    Logging a(options);
    a.poll(milliseconds(1), 20);
    a.heard.lines.clear();
    for (int i = 0; i < 1000; i++) {
        a.replica.receive(PeerId{2}, "nonsense");
        a.poll();
    }
    CHECK(a.heard.lines.size() == 1);
    CHECK(a.heard.text(LogCode::dropped_corrupt) == "messages do not decode: 1 more, 1 in all");
    a.poll(milliseconds(100), 590);
    CHECK(a.heard.lines.size() == 1);
    a.poll(milliseconds(100), 20);
    CHECK(a.heard.lines.size() == 2);
    CHECK(a.heard.text(LogCode::dropped_corrupt) ==
          "messages do not decode: 999 more, 1000 in all");
    CHECK(a.heard.lines.back().level == LogLevel::warning);
    a.poll(milliseconds(100), 2000);
    CHECK(a.heard.lines.size() == 2);  // no more came
    a.poll(seconds(2));
    CHECK(a.heard.count(LogCode::poll_late) == 1);  // another kind
}

TEST_CASE("a full disk, and one with room again, are lines in the log") {
    Logging a;
    const Sync zk = a.open();
    a.disk.set_full(true);
    a.poll(milliseconds(1), 100);
    CHECK(zk.create("/a", "").error() == Errc::storage_full);
    CHECK(a.heard.count(LogCode::storage_full) == 1);
    CHECK(metrics_of(a.replica)["coord_storage_full"] == 1);
    a.disk.set_full(false);
    a.poll(milliseconds(1), 100);
    CHECK(a.heard.count(LogCode::storage_has_room) == 1);
    REQUIRE(zk.create("/a", ""));
}

TEST_CASE("a voter whose storage was wiped is admitted again, and the log says so") {
    World w(of(3));
    const std::uint32_t lead = w.leader(), wiped = w.follower();
    w.sim.run_for(seconds(2));
    w.heard.lines.clear();
    w.sim.crash(wiped);
    w.sim.storage(wiped) = coord::MemoryStorage{};
    w.sim.restart(wiped);
    REQUIRE(w.sim.run_until([&] { return w.heard.count(LogCode::admitted, wiped) == 1; },
                            seconds(30)));
    CHECK(w.heard.count(LogCode::admits, lead) >= 1);
    CHECK(w.heard.count(LogCode::peer_in_step, lead) == 1);
}

TEST_CASE("every line is one line of ASCII, of the poll's time, with its level's name") {
    struct Judging final : coord::ReplicaObserver {
        int lines = 0;
        void on_log(PeerId, const LogLine& line) override {
            lines += 1;
            CHECK(line.text.size() > 0);
            CHECK(line.text.size() < 200);
            for (const char each : line.text) CHECK((each >= 0x20 && each < 0x7F));
            const Bytes level = name(line.level);
            CHECK((level == "INFO" || level == "WARN" || level == "ERROR"));
        }
    } judging;
    SimulationOptions options = of(3, 1);
    options.network.loss_permille = 50;
    options.network.damage_permille = 20;
    Simulation sim(options);
    sim.set_observer(&judging);
    for (std::uint32_t i = 0; i < 6; i++) {
        sim.run_for(seconds(3));
        const std::uint32_t victim = 1 + i % 4;
        sim.crash(victim);
        sim.run_for(seconds(1));
        sim.restart(victim);
    }
    CHECK(judging.lines > 20);
}

TEST_CASE("it only looks: a run that is looked at all the time is the same run") {
    const auto run = [](bool is_looked_at) {
        Simulation sim(of(3, 1));
        Heard heard;
        if (is_looked_at) sim.set_observer(&heard);
        std::size_t bytes = 0;
        for (int i = 0; i < 200; i++) {
            if (i == 50) sim.crash(1);
            if (i == 100) sim.restart(1);
            sim.run_for(milliseconds(50));
            for (std::uint32_t id = 1; is_looked_at && id <= 4; id++) {
                if (!sim.is_running(id)) continue;
                bytes += sim.replica(id).describe().size() + sim.replica(id).state_json().size();
            }
        }
        CHECK((bytes > 0) == is_looked_at);
        return sim.hash();
    };
    CHECK(run(true) == run(false));
}

}  // TEST_SUITE
