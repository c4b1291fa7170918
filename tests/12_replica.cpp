// Chapter 12: whole replicas, alone and three together, with a clock and a network in the test.

#include <doctest/doctest.h>

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coord.hpp"
#include "support.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::Message;
using coord::MessageType;
using coord::milliseconds;
using coord::PeerId;
using coord::Replica;
using coord::ReplicaOptions;
using coord::Request;
using coord::Role;
using coord::seconds;
using coord::SessionId;
using coord::SessionState;
using coord::Time;
using coord::Zxid;
using Kind = coord::Request::Kind;
using Lines = std::vector<std::string>;

struct Packet {
    PeerId from, to;
    Bytes bytes;
};

struct Wire final : coord::Transport {
    PeerId self;
    std::deque<Packet>* sent = nullptr;
    std::size_t bytes_max = 2048;
    std::function<void(PeerId, BytesView)> on_send;
    void send(PeerId to, BytesView bytes) override {
        CHECK(bytes.size() <= bytes_max);
        if (sent != nullptr) sent->push_back(Packet{self, to, Bytes(bytes)});
        if (on_send) on_send(to, bytes);
    }
    std::size_t message_bytes_max() const override { return bytes_max; }
};

Request make(Kind kind, BytesView path, BytesView data = {}) {
    Request request;
    request.kind = kind, request.path = path, request.data = data;
    return request;
}

// One replica alone, polled in steps of a millisecond.
struct Alone {
    coord::MemoryStorage disk;
    std::unique_ptr<Replica> replica;
    Time now{1000000000};
    Lines lines;  // what ended how, in order

    explicit Alone(const ReplicaOptions& options = {}) { restart(options); }
    void restart(const ReplicaOptions& options = {}) {
        replica.reset();
        replica = std::make_unique<Replica>(options, disk);
    }
    void poll(int times = 5) {
        for (int i = 0; i < times; i++) {
            now = now + milliseconds(1);
            replica->poll(now);
            replica->audit();
        }
    }
    SessionId open(coord::Duration timeout = seconds(10)) {
        SessionId id;
        replica->open_session({timeout}, [&](coord::Result<SessionId> r) {
            REQUIRE(r);
            id = *r;
        });
        poll();
        REQUIRE(id != SessionId{});
        return id;
    }
    void note(const std::string& text, Errc error) {
        lines.push_back(text + (error == Errc::ok ? "" : std::string(" ") + name(error)));
    }
    // Each kind of request with its own kind of callback.
    void submit(SessionId id, Request&& request, std::string text) {
        const auto ends = [this, text](const auto& r) { note(text, r.error()); };
        switch (request.kind) {
            case Kind::create: request.done = coord::OnCreated(ends); break;
            case Kind::set:
            case Kind::exists: request.done = coord::OnStat(ends); break;
            case Kind::get: request.done = coord::OnData(ends); break;
            case Kind::children: request.done = coord::OnChildren(ends); break;
            default: request.done = coord::OnDone(ends);
        }
        replica->submit(id, std::move(request));
    }
    // RETURNS how one request ended, after some polls.
    std::string ask(SessionId id, Request&& request) {
        lines.clear();
        submit(id, std::move(request), "done");
        CHECK(lines.empty());  // never inside the call
        poll();
        REQUIRE(lines.size() == 1);
        return lines[0];
    }
};

// Voters 1 to 3 and the network between them.
struct Trio {
    std::vector<std::unique_ptr<coord::MemoryStorage>> disks;
    std::vector<std::unique_ptr<Wire>> wires;
    std::vector<std::unique_ptr<Replica>> replicas;
    std::deque<Packet> packets;
    Time now{1000000000};
    std::uint64_t starts = 0;
    ReplicaOptions base;
    std::function<bool(Packet&)> filter;  // false: lost

    explicit Trio(const ReplicaOptions& options = {}) : base(options) {
        base.voters = {PeerId{1}, PeerId{2}, PeerId{3}}, base.ensemble = 77;
        for (std::uint32_t id = 1; id <= 3; id++) {
            disks.push_back(std::make_unique<coord::MemoryStorage>());
            wires.push_back(std::make_unique<Wire>());
            wires.back()->self = PeerId{id}, wires.back()->sent = &packets;
            replicas.push_back(nullptr);
            start(id);
        }
    }
    void start(std::uint32_t id) {
        ReplicaOptions options = base;
        options.id = PeerId{id}, options.entropy = 1000 + ++starts;
        replicas[id - 1].reset();
        replicas[id - 1] = std::make_unique<Replica>(options, *disks[id - 1], *wires[id - 1]);
    }
    void stop(std::uint32_t id) { replicas[id - 1].reset(); }
    Replica& operator[](std::uint32_t id) { return *replicas[id - 1]; }
    void step(coord::Duration by = milliseconds(5)) {
        now = now + by;
        for (std::size_t count = packets.size(); count > 0; count--) {
            Packet packet = packets.front();
            packets.pop_front();
            if (packet.to.value > 3) continue;  // a hostile peer has named it
            Replica* const to = replicas[packet.to.value - 1].get();
            if (to == nullptr || (filter && !filter(packet))) continue;
            to->receive(packet.from, packet.bytes);
        }
        for (const auto& replica : replicas) {
            if (replica) replica->poll(now);
        }
    }
    void run(int steps = 60) {
        for (int i = 0; i < steps; i++) step();
        for (const auto& replica : replicas) {
            if (replica) replica->audit();
        }
    }
    std::uint32_t leader() {
        std::uint32_t found = 0;
        for (std::uint32_t id = 1; id <= 3; id++) {
            if (!replicas[id - 1]) continue;
            const coord::ReplicaStatus status = replicas[id - 1]->status();
            if (status.role == Role::leading && status.serving) found = id;
        }
        return found;
    }
    std::uint32_t follower() { return leader() == 1 ? 2 : 1; }
    SessionId open(std::uint32_t id, coord::Duration timeout = seconds(10)) {
        SessionId session;
        (*this)[id].open_session({timeout}, [&](coord::Result<SessionId> r) {
            if (r) session = *r;
        });
        run();
        REQUIRE(session != SessionId{});
        return session;
    }
    Errc create(std::uint32_t id, SessionId session, BytesView path, BytesView data = {}) {
        Errc error = Errc::api_error;
        Request request = make(Kind::create, path, data);
        request.done = coord::OnCreated([&](const coord::Result<coord::Created>& r) {
            error = r.error();
        });
        (*this)[id].submit(session, std::move(request));
        run();
        return error;
    }
};

std::string refusal(const ReplicaOptions& options, std::size_t bytes_max = 2048) {
    coord::MemoryStorage disk;
    Wire wire;
    wire.bytes_max = bytes_max;
    Replica replica(options, disk, wire);
    std::string told;
    replica.open_session({}, [&](coord::Result<SessionId> r) { told = name(r.error()); });
    replica.poll(Time{1});
    replica.audit();
    if (replica.status().role != Role::failed) return "";
    CHECK(told == "replica_failed");
    CHECK(disk.appended() == 0);
    return replica.status().reason;
}

}  // namespace

TEST_SUITE("12 replica") {

TEST_CASE("alone: it serves after the first poll, and every kind of request ends") {
    Alone a;
    CHECK(a.replica->status().role == Role::looking);
    CHECK_FALSE(a.replica->status().serving);
    CHECK(a.replica->next_deadline() <= a.now);
    a.poll(1);
    CHECK(a.replica->status().role == Role::leading);
    CHECK(a.replica->status().serving);
    CHECK(a.replica->status().leader == PeerId{1});
    const SessionId id = a.open();
    CHECK(a.ask(id, make(Kind::create, "/a", "x")) == "done");
    CHECK(a.ask(id, make(Kind::set, "/a", "y")) == "done");
    CHECK(a.ask(id, make(Kind::exists, "/a")) == "done");
    CHECK(a.ask(id, make(Kind::get, "/a")) == "done");
    CHECK(a.ask(id, make(Kind::children, "/")) == "done");
    CHECK(a.ask(id, make(Kind::sync, "/")) == "done");
    CHECK(a.ask(id, make(Kind::remove, "/a")) == "done");
    CHECK(a.ask(id, make(Kind::close, "")) == "done");
    CHECK(a.ask(id, make(Kind::get, "/")) == "done session_expired");
    CHECK(a.replica->status().sessions == 0);
    CHECK(a.replica->session_state(id) == SessionState::expired);  // it is not known any more
}

TEST_CASE("options that are refused, each with its reason, and never by ending the process") {
    ReplicaOptions good;
    CHECK(refusal(good).empty());
    ReplicaOptions bad = good;
    const std::string voters = "options: voters must be 1 to 63 distinct ids, none 0";
    SUBCASE("no voters") {
        bad.voters.clear();
        CHECK(refusal(bad) == voters);
    }
    SUBCASE("a voter twice") {
        bad.voters = {PeerId{1}, PeerId{1}};
        CHECK(refusal(bad) == voters);
    }
    SUBCASE("voter 0, itself") {
        bad.voters = {PeerId{}};
        bad.id = PeerId{};
        CHECK(refusal(bad) == voters);
    }
    SUBCASE("64 voters") {
        for (std::uint32_t i = 2; i <= 64; i++) bad.voters.emplace_back(i);
        CHECK(refusal(bad) == voters);
    }
    SUBCASE("nobody") {
        bad.id = PeerId{};
        CHECK(refusal(bad) == "options: id is 0");
    }
    SUBCASE("not a voter: it observes, and is another one at each start") {
        bad.id = PeerId{2};
        CHECK(refusal(bad) == "options: entropy must be random, and another at each start");
        bad.entropy = 5;
        CHECK(refusal(bad).empty());
        coord::MemoryStorage disk;
        const Replica alone(bad, disk);
        CHECK(Bytes(alone.status().reason) ==
              "options: id is not among the voters, and no transport");
    }
    SUBCASE("no entropy among others") {
        bad.voters = {PeerId{1}, PeerId{2}};
        CHECK(refusal(bad) == "options: entropy must be random, and another at each start");
        bad.entropy = 5;
        CHECK(refusal(bad).empty());
    }
    SUBCASE("timing") {
        const std::string timing =
            "options: heartbeat is below 100 us, or silence below two heartbeats";
        bad.timing.heartbeat = coord::microseconds(99);
        CHECK(refusal(bad) == timing);
        bad.timing.heartbeat = milliseconds(100), bad.timing.silence = milliseconds(199);
        CHECK(refusal(bad) == timing);
        bad.timing.silence = milliseconds(200);
        CHECK(refusal(bad).empty());
        bad.timing.heartbeat = seconds(-1);
        CHECK(refusal(bad) == timing);
    }
    SUBCASE("the looking for what is due") {
        const std::string reaping = "options: reap_interval or reaps_per_minute is not above 0";
        bad.timing.reap_interval = coord::Duration{};
        CHECK(refusal(bad) == reaping);
        bad.timing.reap_interval = coord::nanoseconds(1);
        CHECK(refusal(bad).empty());
        bad.timing.reaps_per_minute = 0;
        CHECK(refusal(bad) == reaping);
    }
    SUBCASE("session timeouts") {
        const std::string range = "options: the range of session timeouts is empty";
        bad.session_timeout_min = coord::Duration{};
        CHECK(refusal(bad) == range);
        bad.session_timeout_min = seconds(2), bad.session_timeout_max = seconds(1);
        CHECK(refusal(bad) == range);
    }
    SUBCASE("clock drift") {
        bad.clock_drift_permille = 500;
        CHECK(refusal(bad) == "options: clock drift of 50 percent or more");
    }
    SUBCASE("a transport of tiny messages") {
        CHECK(refusal(good, 1023) == "transport: messages under 1024 bytes");
        CHECK(refusal(good, 0) == "transport: messages under 1024 bytes");
        CHECK(refusal(good, 1024).empty());
    }
}

TEST_CASE("without a transport: more voters than one, or nobody, are refused") {
    for (const std::uint32_t id : {0u, 1u, 7u}) {
        for (const std::size_t count : {0u, 1u, 2u}) {
            ReplicaOptions options;
            options.id = PeerId{id};
            options.entropy = 1;
            options.voters.clear();
            for (std::uint32_t i = 1; i <= count; i++) options.voters.emplace_back(i);
            coord::MemoryStorage disk;
            Replica replica(options, disk);
            replica.poll(Time{1});
            const bool good = id == 1 && count == 1;
            CHECK((replica.status().role == Role::leading) == good);
            CHECK((replica.status().role == Role::failed) == !good);
        }
    }
}

TEST_CASE("paths that are refused before anything is numbered") {
    Alone a;
    const SessionId id = a.open();
    const Zxid before = a.replica->status().last;
    const Bytes longest = "/" + Bytes(1023, 'p'), longer = longest + "p";
    for (const BytesView path :
         {BytesView(""), BytesView("a"), BytesView("//"), BytesView("/a/"), BytesView("/a//b"),
          BytesView("/."), BytesView("/.."), BytesView("/a/./b"), BytesView("/\0", 2),
          BytesView("/\x01"), BytesView("/\x7f"), BytesView("/\xff"), BytesView("/\xed\xa0\x80"),
          BytesView("/\xf0\x9f\x98\x80")}) {
        for (const Kind kind : {Kind::create, Kind::remove, Kind::set, Kind::exists, Kind::get,
                                Kind::children}) {
            CHECK(a.ask(id, make(kind, path)) == "done bad_arguments");
        }
    }
    for (const Kind kind : {Kind::create, Kind::remove, Kind::set, Kind::exists, Kind::get}) {
        CHECK(a.ask(id, make(kind, longer)) == "done too_large");
    }
    CHECK(a.replica->status().last == before);
    CHECK(a.replica->counters().requests_refused == 14 * 6 + 5);
    CHECK(a.ask(id, make(Kind::create, longest)) == "done");
    Request sequential = make(Kind::create, "/" + Bytes(1005, 'p'));
    const Bytes path = "/" + Bytes(1005, 'p');
    sequential.path = path, sequential.mode = CreateMode::persistent_sequential;
    CHECK(a.ask(id, std::move(sequential)) == "done too_large");
}

TEST_CASE("modes, versions and values at their limits") {
    ReplicaOptions options;
    options.limits.data_bytes_max = 100;
    Alone a(options);
    const SessionId id = a.open();
    for (const int mode : {-1, 7, 1000, INT32_MIN}) {
        Request request = make(Kind::create, "/m");
        request.mode = static_cast<CreateMode>(mode);
        CHECK(a.ask(id, std::move(request)) == "done bad_arguments");
    }
    const Bytes most(100, 'x'), more(101, 'x');
    CHECK(a.ask(id, make(Kind::create, "/a", more)) == "done too_large");
    CHECK(a.ask(id, make(Kind::create, "/a", most)) == "done");
    CHECK(a.ask(id, make(Kind::set, "/a", more)) == "done too_large");
    CHECK(a.ask(id, make(Kind::set, "/a", most)) == "done");
    for (const std::int32_t version : {-2, 0, 2, INT32_MAX, INT32_MIN}) {
        Request request = make(Kind::set, "/a", "y");
        request.version = version;
        CHECK(a.ask(id, std::move(request)) == "done bad_version");
        Request removal = make(Kind::remove, "/a");
        removal.version = version;
        CHECK(a.ask(id, std::move(removal)) == "done bad_version");
    }
    CHECK(a.ask(id, make(Kind::create, "/a")) == "done node_exists");
    CHECK(a.ask(id, make(Kind::remove, "/")) == "done bad_arguments");
    CHECK(a.ask(id, make(Kind::get, "/none")) == "done no_node");
    CHECK(a.ask(id, make(Kind::children, "/none")) == "done no_node");
}

TEST_CASE("a value that fits no message of the transport is too large, whatever the limit says") {
    Trio trio;
    trio.run();
    REQUIRE(trio.leader() != 0);
    for (const std::uint32_t id : {trio.leader(), trio.follower()}) {
        const SessionId session = trio.open(id);
        CHECK(trio.create(id, session, "/big", Bytes(2048, 'x')) == Errc::too_large);
        const std::string path = "/fits" + std::to_string(id);
        CHECK(trio.create(id, session, path, Bytes(1500, 'x')) == Errc::ok);
    }
}

TEST_CASE("too many requests, watches and sessions: too_many, and the session lives on") {
    ReplicaOptions options;
    options.limits.requests_per_session_max = 3;
    options.limits.watches_per_session_max = 2;
    options.limits.sessions_max = 2;
    Alone a(options);
    const SessionId id = a.open();
    for (int i = 0; i < 5; i++) {
        a.submit(id, make(Kind::set, "/", "x"), std::to_string(i));
    }
    a.poll();
    CHECK(a.lines == Lines{"3 too_many", "4 too_many", "0", "1", "2"});
    for (int i = 0; i < 3; i++) {
        Request request = make(Kind::exists, "/w");
        request.watcher = [](const coord::WatchEvent&) {};
        const std::string expected = i < 2 ? "done no_node" : "done too_many";
        CHECK(a.ask(id, std::move(request)) == expected);
    }
    CHECK(a.replica->status().watches == 2);
    a.open();
    Errc third = Errc::ok;
    a.replica->open_session({}, [&](coord::Result<SessionId> r) { third = r.error(); });
    a.poll();
    CHECK(third == Errc::too_many);
    for (int i = 0; i < 3; i++) a.submit(id, make(Kind::set, "/", "x"), "set");
    a.lines.clear();
    a.submit(id, make(Kind::close, ""), "close");  // a bound never refuses a close
    a.poll();
    CHECK(a.lines.back() == "close");
    a.open();
}

TEST_CASE("requests of sessions that are not here: session_expired") {
    Alone a;
    a.poll();
    CHECK(a.ask(SessionId{}, make(Kind::get, "/")) == "done session_expired");
    CHECK(a.ask(SessionId{UINT64_MAX}, make(Kind::close, "")) == "done session_expired");
    CHECK(a.replica->session_timeout(SessionId{5}) == coord::Duration{});
    CHECK(a.replica->certain_until(SessionId{5}) == Time{});
    a.replica->on_session_state(SessionId{5}, [](SessionState) { FAIL("nobody's state"); });
    a.poll();
}

TEST_CASE("session timeouts are brought into their range") {
    Alone a;
    const std::pair<coord::Duration, coord::Duration> rows[] = {
        {seconds(5), seconds(5)}, {seconds(-1), milliseconds(200)}, {{}, milliseconds(200)},
        {seconds(100000), seconds(3600)}, {coord::Duration{INT64_MAX}, seconds(3600)},
        {coord::Duration{INT64_MIN}, milliseconds(200)}};
    for (const auto& [asked, given] : rows) {
        CHECK(a.replica->session_timeout(a.open(asked)) == given);
    }
}

TEST_CASE("R3 results come in the order of the requests, reads and refusals among them") {
    Alone a;
    const SessionId id = a.open();
    a.submit(id, make(Kind::create, "/a"), "create");
    a.submit(id, make(Kind::get, "/a"), "get");
    a.submit(id, make(Kind::create, "bad"), "bad");
    a.submit(id, make(Kind::sync, "/"), "sync");
    a.submit(id, make(Kind::set, "/a", "x"), "set");
    a.submit(id, make(Kind::remove, "/a"), "remove");
    a.submit(id, make(Kind::get, "/a"), "after");
    a.submit(id, make(Kind::close, ""), "close");
    a.submit(id, make(Kind::get, "/"), "late");
    a.poll(10);
    CHECK(a.lines == Lines{"late session_expired", "create", "get", "bad bad_arguments", "sync",
                           "set", "remove", "after no_node", "close"});
}

TEST_CASE("R3 an event comes before the answer that shows the change") {
    Alone a;
    const SessionId id = a.open();
    Request request = make(Kind::exists, "/a");
    request.watcher = [&](const coord::WatchEvent& event) {
        a.lines.push_back("event " + event.path);
    };
    a.submit(id, std::move(request), "exists");
    a.submit(id, make(Kind::create, "/a"), "create");
    a.submit(id, make(Kind::get, "/a"), "get");
    a.poll();
    CHECK(a.lines == Lines{"exists no_node", "event /a", "create", "get"});
    CHECK(a.replica->counters().events == 1);
}

TEST_CASE("pages of children") {
    ReplicaOptions options;
    options.limits.list_max = 4;
    Alone a(options);
    const SessionId id = a.open();
    for (const char* const path : {"/d", "/a", "/c", "/b", "/e"}) {
        CHECK(a.ask(id, make(Kind::create, path)) == "done");
    }
    const auto list = [&](BytesView after, std::size_t limit) {
        std::string text;
        Request request = make(Kind::children, "/");
        request.page.after = Bytes(after), request.page.limit = limit;
        request.done = coord::OnChildren([&](const coord::Result<coord::Children>& r) {
            REQUIRE(r);
            for (const Bytes& child : r->names) text += child + " ";
            text += r->more ? "more" : "end";
        });
        a.replica->submit(id, std::move(request));
        a.poll();
        return text;
    };
    CHECK(list("", 2) == "a b more");
    CHECK(list("b", 2) == "c d more");
    CHECK(list("d", 2) == "e zookeeper end");
    CHECK(list("", SIZE_MAX) == "a b c d more");
    CHECK(list("", 0) == "more");
    CHECK(list("zzz", 10) == "end");
}

TEST_CASE("callbacks may submit, open, close, set timers and receive; a poll within is nothing") {
    Alone a;
    const SessionId id = a.open();
    bool opened = false, timed = false;
    Request request = make(Kind::create, "/a");
    request.done = coord::OnCreated([&](const coord::Result<coord::Created>&) {
        CHECK(a.replica->is_polling());
        const std::uint64_t polls = a.replica->counters().polls;
        a.replica->poll(a.now + seconds(100));
        CHECK(a.replica->counters().polls == polls);
        CHECK(a.replica->now() == a.now);
        a.submit(id, make(Kind::create, "/b"), "b");
        a.replica->open_session({}, [&](coord::Result<SessionId> r) { opened = bool(r); });
        a.replica->at(a.now, [&] { timed = true; });
        a.replica->receive(PeerId{9}, "junk");
        a.submit(id, make(Kind::close, ""), "close");
    });
    a.replica->submit(id, std::move(request));
    a.poll(10);
    CHECK(a.lines == Lines{"b", "close"});
    CHECK(opened);
    CHECK(timed);
    CHECK(a.replica->counters().dropped_corrupt == 1);
    CHECK_FALSE(a.replica->is_polling());
}

TEST_CASE("timers: each once, in order of their times, in the poll at or after") {
    Alone a;
    a.poll();
    a.replica->at(a.now + milliseconds(3), [&] { a.lines.push_back("c"); });
    a.replica->at(a.now + milliseconds(2), [&] { a.lines.push_back("a"); });
    a.replica->at(a.now + milliseconds(2), [&] { a.lines.push_back("b"); });
    a.replica->at(coord::never, [&] { FAIL("never"); });
    CHECK(a.replica->next_deadline() <= a.now + milliseconds(2));
    a.poll(1);
    CHECK(a.lines.empty());
    a.poll(1);
    CHECK(a.lines == Lines{"a", "b"});
    a.poll(5);
    CHECK(a.lines == Lines{"a", "b", "c"});
}

TEST_CASE("time that stands still or goes back counts as the latest") {
    Alone a;
    const SessionId id = a.open();
    const Time latest = a.now;
    for (const std::int64_t back : {0, 1, 1000000000, 5000000}) {
        a.replica->poll(latest - coord::nanoseconds(back));
        CHECK(a.replica->now() == latest);
    }
    a.submit(id, make(Kind::create, "/a"), "create");
    for (int i = 0; i < 5; i++) a.replica->poll(latest - seconds(1));
    CHECK(a.lines == Lines{"create"});
    CHECK(a.replica->status().serving);
}

TEST_CASE("a clock that starts below zero promises nothing of the future") {
    Alone a;
    a.now = Time{-seconds(1000).ns};
    const SessionId id = a.open(seconds(10));  // asked for before the first poll
    for (int i = 0; i < 10; i++) {
        const Time until = a.replica->certain_until(id);
        CHECK(until > a.now);
        CHECK(until <= a.now + seconds(10));
        a.poll(30);
    }
}

TEST_CASE("certain_until: less than the timeout by the drift of the clocks, and it is renewed") {
    Alone a;
    const Time asked = a.now + milliseconds(1);  // the first poll
    const SessionId id = a.open(seconds(10));
    CHECK(a.replica->certain_until(id) >= asked + milliseconds(9500));
    CHECK(a.replica->certain_until(id) <= a.now + milliseconds(9500));
    a.poll(2000);
    CHECK(a.replica->certain_until(id) > asked + milliseconds(11000));
    CHECK(a.replica->certain_until(id) <= a.now + milliseconds(9500));
}

TEST_CASE("wall time is the caller's, or the clock's") {
    Alone a;
    const SessionId id = a.open();
    a.submit(id, make(Kind::create, "/a"), "");
    for (int i = 0; i < 3; i++) a.replica->poll(a.now, 1234567890123);
    CHECK(a.replica->tree().find("/a")->stat.ctime_ms == 1234567890123);
    a.submit(id, make(Kind::create, "/b"), "");
    a.poll();
    const std::int64_t ms = a.replica->tree().find("/b")->stat.ctime_ms;
    CHECK(ms <= a.now.ns / 1000000);
    CHECK(ms >= a.now.ns / 1000000 - 10);
}

TEST_CASE("R5 a storage that fails: failed, with its reason, and an error for every caller") {
    Alone a;
    const SessionId id = a.open();
    a.submit(id, make(Kind::create, "/a"), "create");
    a.disk.fail();
    a.poll();
    CHECK(a.replica->status().role == Role::failed);
    CHECK(std::string(a.replica->status().reason) == "the storage failed");
    CHECK_FALSE(a.replica->status().serving);
    CHECK(a.lines == Lines{"create outcome_unknown"});  // R13
    CHECK(a.ask(id, make(Kind::get, "/")) == "done replica_failed");
    Errc opened = Errc::ok;
    a.replica->open_session({}, [&](coord::Result<SessionId> r) { opened = r.error(); });
    a.replica->receive(PeerId{2}, "bytes");
    a.replica->forget(PeerId{2});
    bool timed = false;
    a.replica->at(a.now, [&] { timed = true; });
    a.poll();
    CHECK(opened == Errc::replica_failed);
    CHECK(timed);
    CHECK(a.replica->certain_until(id) == Time{});
    CHECK(a.replica->next_deadline() == coord::never);
}

TEST_CASE("a storage that cannot be opened, and a state that is damaged") {
    Alone a;
    a.disk.fail();
    a.restart();
    CHECK(std::string(a.replica->status().reason) == "the storage did not open");
    coord::MemoryStorage disk;
    coord::Log log(disk);
    REQUIRE(log.open() == Errc::ok);
    REQUIRE(support::install_snapshot(log, {Zxid{1, 1}, 1}, "no state") == Errc::ok);
    REQUIRE(log.flush() == Errc::ok);
    Replica replica({}, disk);
    CHECK(replica.status().role == Role::failed);
    CHECK(std::string(replica.status().reason) == "the snapshot is damaged");
}

TEST_CASE("memory of nodes that have gone is given back, poll by poll") {
    Alone a;
    const SessionId id = a.open();
    for (int i = 0; i < 6000; i++) {
        const Bytes path = "/n" + std::to_string(10000 + i);
        Request request = make(Kind::create, path);
        request.mode = coord::CreateMode::ephemeral;
        a.submit(id, std::move(request), "made");
        if (i % 100 == 0) a.poll(1);
    }
    a.poll();
    CHECK(a.lines == Lines(6000, "made"));
    CHECK(a.replica->tree().spares() < 10);
    a.submit(id, make(Kind::close, ""), "closed");
    while (a.lines.back() != "closed") a.poll(1);
    CHECK(a.replica->tree().size() == 4);
    CHECK(a.replica->tree().spares() > 2000);  // not all at once
    a.poll();
    CHECK(a.replica->tree().spares() == 1024);
}

TEST_CASE("a restart finds everything again, from the log and from a snapshot") {
    for (const std::uint32_t every : {100000u, 7u, 1u}) {
        ReplicaOptions options;
        options.snapshot_every_entries = every, options.log_entries_kept = 3;
        Alone a(options);
        const SessionId id = a.open();
        for (int i = 0; i < 20; i++) {
            REQUIRE(a.ask(id, make(Kind::create, "/n" + std::to_string(i), "data")) == "done");
        }
        const coord::ReplicaStatus before = a.replica->status();
        CHECK((a.replica->counters().snapshots_taken > 0) == (every < 100));
        a.restart(options);
        CHECK(a.replica->status().last == before.last);
        a.poll();
        CHECK(a.replica->status().digest == before.digest);
        CHECK(a.replica->status().applied == before.applied);
        CHECK(a.replica->status().epoch == before.epoch + 1);
        CHECK(a.replica->tree().find("/n19")->data == "data");
        CHECK(a.replica->status().sessions == 1);  // it lives until its time is over
        CHECK(a.ask(id, make(Kind::get, "/")) == "done session_moved");  // not attached here
    }
}

TEST_CASE("L8 a replica from which nobody learns has in memory what is not applied, and no more") {
    ReplicaOptions options;
    options.snapshot_every_entries = 50;
    Alone a(options);
    const SessionId id = a.open();
    for (int i = 0; i < 120; i++) {
        REQUIRE(a.ask(id, make(Kind::create, "/n" + std::to_string(i), "data")) == "done");
        CHECK(a.replica->log().size() == 0);
    }
    CHECK(a.replica->counters().snapshots_taken > 0);
    a.disk.hold_flushes();
    for (int i = 0; i < 7; i++) a.submit(id, make(Kind::set, "/n1", "more"), "set");
    a.poll();
    CHECK(a.replica->log().size() == 7);
    a.disk.stop_holding();
    a.poll();
    CHECK(a.replica->log().size() == 0);
    const std::uint64_t digest = a.replica->status().digest;
    a.restart(options);
    CHECK(a.replica->log().size() > 0);
    a.poll();
    CHECK(a.replica->status().digest == digest);
    CHECK(a.replica->log().size() == 0);
    Trio trio(options);  // a learner may want it
    trio.run();
    const SessionId other = trio.open(1);
    REQUIRE(trio.create(1, other, "/a") == Errc::ok);
    CHECK(trio[trio.leader()].log().size() > 1);
}

// Crashes at any time; snapshots that wait, find no space in each of their steps, and are begun
// again, while what they cover is forgotten in memory.
TEST_CASE("L8 alone: whatever becomes of snapshots, no crash takes what was acknowledged") {
    struct Moody final : support::Forwarding {
        Moody(coord::Storage& inner, coord::Rng& dice) : Forwarding(inner), rng(dice) {}
        coord::Rng& rng;
        bool is_begun = false;  // what found no space is given up: no more of it may come
        Errc judge(std::uint32_t permille) {
            is_begun = is_begun && !rng.chance(permille);
            return is_begun ? Errc::ok : Errc::storage_full;
        }
        Errc begin_snapshot() override {
            is_begun = true;
            return judge(100) == Errc::ok ? inner_.begin_snapshot() : Errc::storage_full;
        }
        Errc write_snapshot(BytesView piece) override {
            CHECK(is_begun);
            if (piece.empty() && rng.chance(400)) return Errc::throttled_op;
            return judge(50) == Errc::ok ? inner_.write_snapshot(piece) : Errc::storage_full;
        }
        Errc read_snapshot(coord::Sequence snapshot, std::uint64_t offset, std::size_t size,
                           Bytes& out) override {
            CHECK((snapshot != 0 || is_begun));
            if (snapshot == 0 && rng.chance(400)) return Errc::throttled_op;
            return inner_.read_snapshot(snapshot, offset, size, out);
        }
        Errc end_snapshot(coord::Sequence first_needed, bool replaces) override {
            CHECK(is_begun);
            if (judge(300) != Errc::ok) return Errc::storage_full;
            is_begun = false;
            return inner_.end_snapshot(first_needed, replaces);
        }
    };
    coord::Rng rng{support::seed_or(8)};
    std::uint64_t taken = 0, given_up = 0, orders = 0;
    for (int round = 0; round < 30; round++) {
        coord::MemoryStorage memory;
        Moody disk(memory, rng);
        ReplicaOptions options;
        options.snapshot_every_entries = static_cast<std::uint32_t>(rng.below(30));
        Time now{1000000000};
        std::map<Bytes, std::int32_t> acknowledged, asked;
        for (int life = 0; life < 6; life++) {
            Replica replica(options, disk);
            orders += replica.tree().is_in_order() ? 0u : 1u;
            SessionId id;
            replica.open_session({}, [&](coord::Result<SessionId> r) { id = *r; });
            const std::uint64_t polls = 20 + rng.below(100);
            for (std::uint64_t poll = 0; poll < polls; poll++) {
                if (rng.chance(100)) memory.hold_flushes();
                if (rng.chance(200)) memory.stop_holding();
                for (std::uint64_t i = id == SessionId{} ? 0 : rng.below(12); i > 0; i--) {
                    const Bytes path = "/n" + std::to_string(rng.below(40));
                    const Bytes first(rng.below(20000), 'd');
                    Request request = make(Kind::create, path, first);
                    request.done = coord::OnCreated([](const coord::Result<coord::Created>&) {});
                    if (asked.count(path) == 0) replica.submit(id, std::move(request));
                    asked[path] += 1;
                    const Bytes next(rng.below(3000), 's');
                    Request set = make(Kind::set, path, next);
                    set.done = coord::OnStat([&, path](const coord::Result<coord::Stat>& r) {
                        if (r) acknowledged[path] = r->version;
                    });
                    replica.submit(id, std::move(set));
                }
                replica.poll(now = now + milliseconds(1));
                if (rng.chance(50)) replica.audit();
            }
            REQUIRE(replica.status().role == Role::leading);
            taken += replica.counters().snapshots_taken;
            given_up += replica.counters().snapshots_given_up;
            memory.crash(rng.below(4));
            memory.stop_holding();
        }
        Replica last(options, disk);
        for (int i = 0; i < 50; i++) last.poll(now = now + milliseconds(1));
        last.audit();
        CHECK(last.log().size() == 0);
        for (const auto& each : acknowledged) {
            CAPTURE(each.first);
            const auto found = last.tree().find(each.first);
            REQUIRE(found);
            CHECK(found->stat.version >= each.second);
        }
    }
    CHECK(taken > 30);
    CHECK(given_up > 30);
    CHECK(orders > 30);
}

TEST_CASE("T12 what a restart finds is put in order as it is looked at, and no poll does it") {
    Alone a;
    const SessionId id = a.open();
    for (int i = 0; i < 3000; i++) {
        a.submit(id, make(Kind::create, "/n" + std::to_string(i % 1500), "data"), "done");
        if (i % 100 == 0) a.poll(1);
        if (i == 1499) a.poll(10);
    }
    a.poll(10);
    CHECK(a.replica->tree().is_in_order());
    ReplicaOptions options;
    options.snapshot_every_entries = 10;
    a.restart(options);
    CHECK(a.replica->tree().is_in_order());  // there was no snapshot: each was linked as it came
    a.poll(300);
    REQUIRE(a.replica->counters().snapshots_taken > 0);
    a.restart(options);
    CHECK_FALSE(a.replica->tree().is_in_order());
    CHECK(a.replica->tree().contains("/n7"));
    for (int i = 0; i < 5; i++) a.replica->poll(a.now = a.now + milliseconds(1));  // no audit
    CHECK(a.replica->status().serving);
    std::vector<Bytes> names;
    REQUIRE(a.replica->tree().children("/zookeeper", "", SIZE_MAX, names) == Errc::ok);
    CHECK_FALSE(a.replica->tree().is_in_order());
    names.clear();
    REQUIRE(a.replica->tree().children("/", "", SIZE_MAX, names) == Errc::ok);
    CHECK(a.replica->tree().is_in_order());
    CHECK(names.size() == 1501);
    CHECK(std::is_sorted(names.begin(), names.end()));
}

// It takes longer than any other poll, of a large state longer than Timing::silence.
TEST_CASE("T12 who has peers is in order before the first poll: no poll of its makes them wait") {
    ReplicaOptions options;
    options.snapshot_every_entries = 5;
    Trio trio(options);
    trio.run();
    const std::uint32_t id = trio.follower();
    const SessionId session = trio.open(id);
    for (int i = 0; i < 12; i++) {
        REQUIRE(trio.create(id, session, "/n" + std::to_string(i)) == Errc::ok);
    }
    REQUIRE(trio[id].counters().snapshots_taken > 0);
    trio.stop(id);
    trio.start(id);
    CHECK(trio[id].tree().contains("/n3"));
    CHECK(trio[id].tree().is_in_order());
    trio.run();
    CHECK(trio[id].tree().contains("/n11"));
}

TEST_CASE("no snapshot is begun before what a restart comes back with is applied") {
    ReplicaOptions options;
    options.snapshot_every_entries = 1000000;
    Alone a(options);
    const SessionId id = a.open();
    for (int i = 0; i < 6000; i++) {
        a.submit(id, make(Kind::set, "/", "data"), "done");
        if (i % 100 == 0) a.poll(1);
    }
    a.poll(10);
    const coord::Zxid last = a.replica->status().applied;
    options.snapshot_every_entries = 10;
    a.restart(options);
    int polls = 0;
    for (; a.replica->status().applied < last; polls++) {
        REQUIRE(polls < 100);
        CHECK_FALSE(a.replica->tree().is_saving());
        CHECK(a.replica->counters().snapshots_taken == 0);
        a.poll(1);
    }
    CHECK(polls > 4);
    a.poll(10);
    CHECK(a.replica->counters().snapshots_taken > 0);
}

// 20,000 nodes and 4 MB: some eighty slices, each of them a poll where there is time.
TEST_CASE("R19 a snapshot that lags behind the load is given more of a poll, and the load less") {
    ReplicaOptions options;
    options.snapshot_every_entries = 1000000;
    options.limits.requests_per_session_max = 4096;
    Alone a(options);
    const SessionId id = a.open();
    for (int i = 0; i < 20000; i++) {
        const Bytes path = "/n" + std::to_string(i);
        a.submit(id, make(Kind::create, path, Bytes(100, 'd')), "done");
        if (i % 200 == 0) a.now = a.now + milliseconds(1), a.replica->poll(a.now);
    }
    while (a.lines.size() < 20000) a.now = a.now + milliseconds(1), a.replica->poll(a.now);
    for (const std::size_t load : {0u, 10u, 2000u}) {
        options.snapshot_every_entries = 10;
        a.restart(options);
        SessionId own;
        a.replica->open_session({}, [&](coord::Result<SessionId> r) { own = *r; });
        int ticks = 0;
        const auto tick = [&] {
            REQUIRE(++ticks < 3000);
            a.now = a.now + milliseconds(1), a.replica->poll(a.now);
        };
        while (own == SessionId{}) tick();
        const auto counters = [&a] { return a.replica->counters(); };
        std::uint64_t taken = counters().snapshots_taken;
        for (int idle = 0; counters().snapshots_taken == taken; tick()) {
            const bool is_saving = a.replica->tree().is_saving();
            if (is_saving) CHECK(a.replica->next_deadline() <= a.now);
            if (!is_saving && idle++ < 20) a.submit(own, make(Kind::set, "/n1", "x"), "set");
        }
        for (; !a.replica->tree().is_saving(); tick()) {
            a.submit(own, make(Kind::set, "/n1", "x"), "set");
        }
        taken = counters().snapshots_taken;
        const std::uint64_t before = counters().applied;
        std::uint64_t polls = 0, most = 0, most_late = 0, thirds = 0;
        for (; counters().snapshots_taken == taken; polls++) {
            a.lines.clear();
            for (std::size_t i = 0; i < load; i++) {
                a.submit(own, make(Kind::set, "/n1", "x"), "set");
            }
            const std::uint64_t applied = counters().applied;
            tick();
            const std::uint64_t now_applied = counters().applied - applied;
            most = (std::max)(most, now_applied);
            if (polls > 0) most_late = (std::max)(most_late, now_applied);
            thirds += now_applied > 0 && now_applied <= 1024 / 3 / 2 + 1 ? 1u : 0u;
        }
        const std::uint64_t applied = counters().applied - before;
        CAPTURE(load);
        CAPTURE(polls);
        CAPTURE(applied);
        if (load < 2000) CHECK(polls > 60);
        if (load == 2000) CHECK(polls < 40);
        CHECK(applied < 15000);
        CHECK(most <= 1024 / 2);  // a set is 2 of a poll's work: its change, and a look at it
        if (load < 2000) continue;
        CHECK(most == 1024 / 2);           // in the first poll, where it does not lag yet
        CHECK(most_late <= 1024 / 2 / 2);  // then there are two slices in each, or three,
        CHECK(thirds > 1);                 // and a half of the work is left, or a third
    }
}

// Forty nodes of 100 kB, of which ten are set in each poll: few entries, and many bytes.
TEST_CASE("R19 a snapshot keeps pace with the bytes of the log, too") {
    ReplicaOptions options;
    options.snapshot_every_entries = 1000000;
    options.snapshot_every_bytes = 6 * 1024 * 1024;
    Alone a(options);
    const SessionId id = a.open();
    const Bytes data(100000, 'd');
    for (int i = 0; i < 40; i++) {
        REQUIRE(a.ask(id, make(Kind::create, "/n" + std::to_string(i), data)) == "done");
    }
    std::uint64_t before = 0, applied = 0;
    for (int polls = 0; a.replica->counters().snapshots_taken == 0; polls++) {
        REQUIRE(polls < 200);
        for (int i = 0; i < 10; i++) {
            const Bytes path = "/n" + std::to_string((polls + i) % 40);
            a.submit(id, make(Kind::set, path, data), "set");
        }
        a.now = a.now + milliseconds(1), a.replica->poll(a.now);
        applied = a.replica->counters().applied;
        if (!a.replica->tree().is_saving() && before == 0) continue;
        if (before == 0) before = applied;
    }
    CHECK(before > 0);
    CHECK(applied - before < 200);  // 20 MB; the tree has 4
}

TEST_CASE("a snapshot that finds no space is not begun again before there is more to take") {
    struct Full final : support::Forwarding {
        using Forwarding::Forwarding;
        int begun = 0;
        Errc begin_snapshot() override { return begun += 1, Errc::storage_full; }
    };
    coord::MemoryStorage memory;
    Full disk(memory);
    ReplicaOptions options;
    options.snapshot_every_entries = 0;
    options.snapshot_every_bytes = 0;
    Replica replica(options, disk);
    Time now{1000000000};
    replica.open_session({seconds(10)}, [](const coord::Result<SessionId>&) {});
    for (int i = 0; i < 5; i++) replica.poll(now = now + milliseconds(1));
    const int begun = disk.begun;
    CHECK(begun > 0);
    CHECK(replica.counters().snapshots_given_up > 0);
    CHECK(replica.next_deadline() > now + milliseconds(1));
    for (int i = 0; i < 5; i++) replica.poll(now = now + milliseconds(1));
    CHECK(disk.begun == begun);
}

TEST_CASE("a session whose process is gone expires, with its ephemerals") {
    Alone a;
    const SessionId id = a.open(milliseconds(500));
    Request request = make(Kind::create, "/e");
    request.mode = CreateMode::ephemeral;
    REQUIRE(a.ask(id, std::move(request)) == "done");
    a.restart();
    a.poll(200);
    CHECK(a.replica->tree().contains("/e"));
    a.poll(2000);
    CHECK_FALSE(a.replica->tree().contains("/e"));
    CHECK(a.replica->leader_counters().sessions_expired == 1);
}

TEST_CASE("R2 what is not durable is neither applied nor answered") {
    Alone a;
    const SessionId id = a.open();
    a.disk.hold_flushes();
    a.submit(id, make(Kind::create, "/a"), "create");
    a.poll(20);
    CHECK(a.lines.empty());
    CHECK_FALSE(a.replica->tree().contains("/a"));
    CHECK(a.replica->status().last > a.replica->status().durable);
    a.disk.stop_holding();
    a.poll(2);
    CHECK(a.lines == Lines{"create"});
}

TEST_CASE("a disk that takes long shows in the status, while it does and afterwards") {
    Alone a;
    const SessionId id = a.open();
    const std::uint64_t flushes = a.replica->counters().flushes;
    CHECK(flushes > 0);
    CHECK(a.replica->status().flush_lag == coord::Duration{});
    CHECK(a.replica->status().flush_longest == coord::Duration{});
    a.disk.hold_flushes();
    a.submit(id, make(Kind::create, "/a"), "create");
    a.poll(1);
    const coord::Sequence first = a.disk.flushed();
    a.poll(10);
    a.submit(id, make(Kind::create, "/b"), "create");
    a.poll(11);
    CHECK(a.replica->counters().flushes == flushes + 2);
    CHECK(a.replica->status().flush_lag == milliseconds(21));
    CHECK(a.replica->status().flush_longest == milliseconds(21));
    a.disk.release(first);
    a.poll(1);
    CHECK(a.replica->status().flush_lag == milliseconds(11));  // now the second is the oldest
    CHECK(a.replica->status().flush_longest == milliseconds(22));
    a.poll(250);
    CHECK(a.replica->status().flush_longest == milliseconds(261));
    CHECK(a.replica->counters().flushes_slow == 0);
    a.disk.stop_holding();
    a.poll(20);
    CHECK(a.replica->status().flush_lag == coord::Duration{});
    CHECK(a.replica->status().flush_longest == milliseconds(262));
    CHECK(a.replica->counters().flushes_slow == 1);
    CHECK(a.lines.size() == 2);
    a.ask(id, make(Kind::create, "/c"));
    CHECK(a.replica->status().flush_longest == milliseconds(262));
    CHECK(a.replica->counters().flushes_slow == 1);
    CHECK(a.replica->counters().polls_late == 0);
}

TEST_CASE("a loop that something holds up shows in its polls, a blocking disk too") {
    Alone a;
    a.open();
    CHECK(a.replica->status().poll_gap_longest == milliseconds(1));
    CHECK(a.replica->counters().polls_late == 0);
    a.now = a.now + milliseconds(249);
    a.poll(2);
    CHECK(a.replica->counters().polls_late == 0);
    a.now = a.now + milliseconds(250);
    a.poll(2);
    CHECK(a.replica->counters().polls_late == 1);
    a.now = a.now - milliseconds(100);         // a clock that goes back is not late
    a.poll(2);
    CHECK(a.replica->counters().polls_late == 1);
    CHECK(a.replica->status().poll_gap_longest == milliseconds(251));
}

TEST_CASE("three: one leads, writes from each are seen by all, with equal digests") {
    Trio trio;
    trio.run();
    REQUIRE(trio.leader() != 0);
    for (std::uint32_t id = 1; id <= 3; id++) {
        const SessionId session = trio.open(id);
        CHECK(trio.create(id, session, "/from" + std::to_string(id)) == Errc::ok);
    }
    for (std::uint32_t id = 1; id <= 3; id++) {
        CHECK(trio[id].status().serving);
        CHECK(trio[id].status().leader == PeerId{trio.leader()});
        CHECK(trio[id].status().digest == trio[1].status().digest);
        CHECK(trio[id].tree().contains("/from3"));
        CHECK(trio[id].counters().dropped_corrupt == 0);
        CHECK(trio[id].counters().messages_sent > 0);
        CHECK(trio[id].counters().bytes_sent > trio[id].counters().messages_sent);
    }
}

TEST_CASE("R4 the leader dies with a write under way: it ends, and is executed once") {
    Trio trio;
    trio.run();
    const std::uint32_t leader = trio.leader(), follower = trio.follower();
    REQUIRE(leader != 0);
    const SessionId session = trio.open(follower);
    std::vector<SessionState> states;
    trio[follower].on_session_state(session, [&](SessionState s) { states.push_back(s); });
    Bytes made;
    Request request = make(Kind::create, "/s-");
    request.mode = CreateMode::persistent_sequential;
    request.done = coord::OnCreated([&](const coord::Result<coord::Created>& r) {
        REQUIRE(r);
        made = r->path;
    });
    trio[follower].submit(session, std::move(request));
    trio.step();
    trio.stop(leader);
    trio.run(300);
    CHECK(trio.leader() != 0);
    CHECK(made == "/s-0000000000");
    CHECK_FALSE(trio[follower].tree().contains("/s-0000000001"));
    CHECK(states == std::vector<SessionState>{SessionState::suspended, SessionState::connected});
    trio.start(leader);
    trio.run(200);
    CHECK(trio[leader].status().digest == trio[follower].status().digest);
}

// Each step is a poll, and five milliseconds: the ends are applied for longer than a heartbeat.
TEST_CASE("P11 leases are renewed while what is applied lags behind by more than a heartbeat") {
    Trio trio;
    trio.run();
    const std::uint32_t leader = trio.leader(), home = leader == 1 ? 2 : 1;
    const std::uint32_t other = 6 - leader - home;
    const SessionId there = trio.open(other, seconds(1)), own = trio.open(leader, seconds(1));
    std::size_t opened = 0, created = 0;
    const std::size_t sessions = 200, nodes = 256;
    for (std::size_t i = 0; i < sessions; i++) {
        trio[home].open_session({seconds(1)}, [&](coord::Result<SessionId> session) {
            REQUIRE(session);
            opened += 1;
            for (std::size_t k = 0; k < nodes; k++) {
                Request request = make(Kind::create, "/x");
                request.mode = CreateMode::ephemeral_sequential;
                request.done = coord::OnCreated([&](const coord::Result<coord::Created>& r) {
                    REQUIRE(r);
                    created += 1;
                });
                trio[home].submit(*session, std::move(request));
            }
        });
    }
    for (int i = 0; i < 10000 && created < sessions * nodes; i++) trio.step();
    REQUIRE(created == sessions * nodes);
    REQUIRE(opened == sessions);
    trio.stop(home);
    coord::Duration least = seconds(1);
    int steps = 0;
    for (; trio[leader].machine().sessions().size() > 2 && steps < 1000; steps++) {
        trio.step();
        least = (std::min)(least, trio[other].certain_until(there) - trio.now);
        least = (std::min)(least, trio[leader].certain_until(own) - trio.now);
    }
    CHECK(trio[leader].machine().sessions().size() == 2);
    CHECK(least > milliseconds(50));
}

TEST_CASE("R4 a request that is lost, an open and a sync among them, is sent again") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower();
    int lost = 0;
    trio.filter = [&](Packet& packet) {
        Message message;
        REQUIRE(decode_message(packet.bytes, message) == Errc::ok);
        const bool asks =
            message.type == MessageType::request || message.type == MessageType::sync;
        if (packet.from != PeerId{id} || !asks || lost > 0) return true;
        lost += 1;
        return false;
    };
    const SessionId session = trio.open(id);
    CHECK(lost == 1);
    lost = 0;
    CHECK(trio.create(id, session, "/a") == Errc::ok);
    CHECK(lost == 1);
    lost = 0;
    bool synced = false;
    Request sync = make(Kind::sync, "/");
    sync.done = coord::OnDone([&](const coord::Result<void>& r) { synced = bool(r); });
    trio[id].submit(session, std::move(sync));
    trio.run();
    CHECK(lost == 1);
    CHECK(synced);
    CHECK(trio[id].counters().requests_repeated == 3);
    CHECK(trio[id].status().sessions == 1);
}

// The leader may be slow: what it is told over and over makes it no quicker.
TEST_CASE("R4 what has no answer is sent again ever less often, until another one leads") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower();
    const SessionId session = trio.open(id);
    bool opens = false;
    SUBCASE("a write") {}
    SUBCASE("an open") { opens = true; }
    const coord::Duration heartbeat = trio.base.timing.heartbeat;
    std::vector<Time> sent;
    int lost_more = 1000000;
    trio.filter = [&](Packet& packet) {
        Message message;
        REQUIRE(decode_message(packet.bytes, message) == Errc::ok);
        if (message.type != MessageType::request || lost_more == 0) return true;
        sent.push_back(trio.now), lost_more -= 1;
        return false;
    };
    bool is_done = false;
    if (opens) {
        trio[id].open_session({seconds(10)}, [&](coord::Result<SessionId> r) {
            is_done = bool(r);
        });
    } else {
        Request request = make(Kind::create, "/a");
        request.done = coord::OnCreated([&](const coord::Result<coord::Created>& r) {
            is_done = bool(r);
        });
        trio[id].submit(session, std::move(request));
    }
    trio.run(1200);
    REQUIRE(sent.size() >= 8);
    CHECK(sent.size() <= 12);
    for (std::size_t i = 1; i < sent.size(); i++) {
        CAPTURE(i);
        const std::int64_t heartbeats = i > 4 ? 8 : std::int64_t{1} << (i - 1);
        CHECK(sent[i] - sent[i - 1] <= heartbeat * heartbeats + milliseconds(i == 1 ? 100 : 5));
        if (i > 1) CHECK(sent[i] - sent[i - 1] >= heartbeat * heartbeats);
    }
    CHECK(trio[id].counters().requests_repeated == sent.size() - 1);
    CHECK_FALSE(is_done);
    // Two more are lost, at the next leader.
    lost_more = 2;
    trio.stop(trio.leader());
    for (int i = 0; i < 1000 && !is_done; i++) trio.step();
    CHECK(is_done);
    if (lost_more < 2) CHECK(trio.now - sent.back() <= heartbeat * 2 + milliseconds(50));
}

TEST_CASE("a hint that the leader is gone: its followers look at once") {
    Trio trio;
    trio.run();
    const std::uint32_t leader = trio.leader(), follower = trio.follower();
    trio[follower].forget(PeerId{leader});
    CHECK(trio[follower].status().role == Role::looking);
    CHECK(std::string(trio[follower].status().reason) == "the leader is gone");
    trio.run(200);
    CHECK(trio[follower].status().serving);  // a wrong hint costs time only
}

TEST_CASE("a hint that a peer is gone comes after all that it has said before") {
    Trio trio;
    trio.run();
    const std::uint32_t leader = trio.leader(), follower = trio.follower();
    std::vector<Packet> held;
    trio.filter = [&](Packet& packet) {
        if (packet.from == PeerId{follower}) held.push_back(packet);
        return packet.from != PeerId{follower};
    };
    for (int i = 0; i < 30 && held.empty(); i++) trio.step();
    REQUIRE_FALSE(held.empty());
    for (const Packet& packet : held) trio[leader].receive(packet.from, packet.bytes);
    SUBCASE("without it") {
        trio[leader].poll(trio.now);
        CHECK(trio[leader].describe().find("3 of 3 in step") != Bytes::npos);
    }
    SUBCASE("with it") {
        trio[leader].forget(PeerId{follower});
        trio[leader].poll(trio.now);
        CHECK(trio[leader].describe().find("2 of 3 in step") != Bytes::npos);
    }
    SUBCASE("what comes then is heard again") {
        trio[leader].forget(PeerId{follower});
        for (const Packet& packet : held) trio[leader].receive(packet.from, packet.bytes);
        trio[leader].poll(trio.now);
        CHECK(trio[leader].describe().find("3 of 3 in step") != Bytes::npos);
    }
    SUBCASE("nothing is no message, and no hint") {
        const std::uint64_t corrupt = trio[leader].counters().dropped_corrupt;
        trio[leader].receive(PeerId{follower}, "");
        trio[leader].poll(trio.now);
        CHECK(trio[leader].counters().dropped_corrupt == corrupt + 1);
        CHECK(trio[leader].describe().find("3 of 3 in step") != Bytes::npos);
    }
}

TEST_CASE("who follows one that does not lead is told so, and looks again") {
    Trio trio;
    trio.run();
    const std::uint32_t leader = trio.leader(), follower = trio.follower();
    const std::uint32_t other = 6 - leader - follower;
    // From an earlier life of the other one, when it led; late.
    coord::Message late;
    late.type = coord::MessageType::notification;
    late.from = PeerId{other}, late.to = PeerId{follower}, late.ensemble = 77;
    late.nonce = 5, late.sequence = 1000, late.leader = PeerId{other};
    late.phase = static_cast<std::uint8_t>(Role::leading);
    const coord::Voters voters(trio.base.voters);
    Bytes payload, bytes;
    coord::write_voters(voters, {voters.all(), voters.all(), true}, PeerId{follower}, payload);
    late.payload = payload;
    coord::encode_message(late, bytes);
    trio[follower].forget(PeerId{leader});
    trio[follower].receive(PeerId{other}, bytes);
    trio[follower].poll(trio.now);
    REQUIRE(trio[follower].status().leader == PeerId{other});
    SUBCASE("by the answer to what it has asked as it looked") {}
    SUBCASE("that was lost: by the answer to what it says as it follows") { trio.packets.clear(); }
    const Time before = trio.now;
    for (int i = 0; i < 1000 && !trio[follower].status().serving; i++) trio.step();
    CHECK(trio[follower].status().leader == PeerId{leader});
    CHECK(trio.now - before < trio.base.timing.silence / 2);
}

TEST_CASE("without a quorum nothing is served, and writes wait") {
    Trio trio;
    trio.run();
    const std::uint32_t leader = trio.leader();
    const SessionId session = trio.open(leader, seconds(60));
    for (std::uint32_t id = 1; id <= 3; id++) {
        if (id != leader) trio.stop(id);
    }
    trio.run(200);
    CHECK_FALSE(trio[leader].status().serving);
    CHECK(trio[leader].session_state(session) == SessionState::suspended);
    CHECK(trio.create(leader, session, "/waits") == Errc::api_error);  // not called yet
    CHECK_FALSE(trio[leader].tree().contains("/waits"));
}

TEST_CASE("a replica far behind gets a snapshot, and watches hear what they missed") {
    ReplicaOptions options;
    options.snapshot_every_entries = 10, options.log_entries_kept = 2;
    Trio trio(options);
    trio.run();
    const std::uint32_t late = trio.follower(), leader = trio.leader();
    const SessionId local = trio.open(late, seconds(3000));
    Lines heard;
    for (const char* const path : {"/n0", "/n39"}) {  // one in the snapshot, one after it
        Request watch = make(Kind::exists, path);
        watch.watcher = [&](const coord::WatchEvent& event) {
            if (event.type == coord::EventType::created) heard.push_back(event.path);
        };
        trio[late].submit(local, std::move(watch));
    }
    const SessionId session = trio.open(leader, seconds(3000));
    trio.filter = [&](Packet& packet) {
        return packet.from != PeerId{late} && packet.to != PeerId{late};
    };
    for (int i = 0; i < 40; i++) {
        REQUIRE(trio.create(leader, session, "/n" + std::to_string(i), Bytes(200, 'd')) ==
                Errc::ok);
    }
    CHECK(heard.empty());
    CHECK(trio[leader].log().snapshot_position().zxid < trio[leader].status().last);
    trio.filter = nullptr;
    trio.run(400);
    CHECK(trio[late].counters().snapshots_installed == 1);
    CHECK(heard == Lines{"/n0", "/n39"});
    CHECK(trio[late].status().digest == trio[leader].status().digest);
    CHECK(trio[late].session_state(local) == SessionState::connected);
    trio.start(late);
    trio.run(200);
    CHECK(trio[late].status().digest == trio[leader].status().digest);
}

MessageType type_of(const Packet& packet) {
    Message message;
    REQUIRE(decode_message(packet.bytes, message) == Errc::ok);
    return message.type;
}

// A leader with forty nodes more than a replica that is back and fetches a snapshot, of which it
// gets as many chunks as the test lets through.
struct Fetching : Trio {
    std::uint32_t late, head;
    SessionId session;
    int chunks = 0;
    std::vector<std::uint64_t> offsets;  // of the chunks that it got

    static ReplicaOptions often() {
        ReplicaOptions options;
        options.snapshot_every_entries = 10, options.log_entries_kept = 2;
        return options;
    }
    Fetching() : Trio(often()) {
        run();
        late = follower(), head = leader();
        session = open(head, seconds(3000));
        filter = [this](Packet& packet) {
            return packet.from != PeerId{late} && packet.to != PeerId{late};
        };
        for (int i = 0; i < 40; i++) REQUIRE(create("/n" + std::to_string(i)) == Errc::ok);
        filter = [this](Packet& packet) {
            if (type_of(packet) != MessageType::chunk) return true;
            if (chunks == 0) return false;
            chunks -= 1;
            Message message;
            REQUIRE(decode_message(packet.bytes, message) == Errc::ok);
            offsets.push_back(message.offset);
            return true;
        };
    }
    Errc create(BytesView path) { return Trio::create(head, session, path, Bytes(200, 'd')); }
    std::uint64_t taken() { return replicas[head - 1]->counters().snapshots_taken; }
    std::uint64_t installed() { return replicas[late - 1]->counters().snapshots_installed; }
    // Many small writes, and little time.
    void fill(int count) {
        for (int i = 0; i < count; i++) {
            replicas[head - 1]->submit(session, make(Kind::set, "/n0", "x"));
            if (i % 500 == 499) run(4);
        }
        run(20);
    }
};

TEST_CASE("faults D13: a full disk of the leader: what grows is refused, what frees goes on") {
    Trio trio;
    trio.run();
    const std::uint32_t leader = trio.leader(), follower = trio.follower();
    const SessionId local = trio.open(leader), remote = trio.open(follower);
    REQUIRE(trio.create(leader, local, "/a") == Errc::ok);
    REQUIRE(trio.create(leader, local, "/b") == Errc::ok);
    trio.disks[leader - 1]->set_full(true);
    trio.run();
    CHECK(trio.create(leader, local, "/c") == Errc::storage_full);
    CHECK(trio.create(follower, remote, "/c") == Errc::storage_full);
    for (const std::uint32_t at : {leader, follower}) {
        const SessionId late = trio.open(at);  // somebody has to delete something
        Errc removed = Errc::api_error, read = Errc::api_error, set = Errc::api_error;
        Request request = make(Kind::remove, at == leader ? "/a" : "/b");
        request.done = coord::OnDone([&](coord::Result<void> r) { removed = r.error(); });
        trio[at].submit(late, std::move(request));
        request = make(Kind::get, "/zookeeper");
        request.done = coord::OnData([&](const coord::Result<coord::Data>& r) {
            read = r.error();
        });
        trio[at].submit(late, std::move(request));
        request = make(Kind::set, "/zookeeper", "x");
        request.done = coord::OnStat([&](const coord::Result<coord::Stat>& r) { set = r.error(); });
        trio[at].submit(late, std::move(request));
        trio.run();
        CHECK(removed == Errc::ok);
        CHECK(read == Errc::ok);
        CHECK(set == Errc::storage_full);
        CHECK(trio[at].status().role != Role::failed);
    }
    trio.disks[leader - 1]->set_full(false);
    trio.run();
    CHECK(trio.create(leader, local, "/c") == Errc::ok);
    CHECK(trio.create(follower, remote, "/d") == Errc::ok);
    CHECK(trio.leader() == leader);
}

TEST_CASE("faults S2: a snapshot that a learner fetches is not replaced meanwhile") {
    Fetching trio;
    trio.chunks = 2;
    trio.run(100);
    REQUIRE(trio.chunks == 0);
    const std::uint64_t taken = trio.taken();
    for (int i = 0; i < 30; i++) {
        REQUIRE(trio.create("/m" + std::to_string(i)) == Errc::ok);
        trio.chunks = i % 10 == 9 ? 1 : 0;
    }
    CHECK(trio.taken() == taken);
    trio.chunks = 1000;
    trio.run(100);
    CHECK(trio.installed() == 1);
    CHECK(trio[trio.late].status().digest == trio[trio.head].status().digest);
    CHECK(trio.offsets.size() > 4);
    for (std::size_t i = 1; i < trio.offsets.size(); i++) {
        CHECK(trio.offsets[i] > trio.offsets[i - 1]);  // it never began anew
    }
    CHECK(trio.taken() == taken + 1);  // what was put off is done
    for (int i = 0; i < 12; i++) {
        REQUIRE(trio.create("/after" + std::to_string(i)) == Errc::ok);
    }
    CHECK(trio.taken() == taken + 2);
    CHECK(trio[trio.head].log().size() < 20);
}

TEST_CASE("faults S8: a learner that fetches is not waited for for ever: the log stays bounded") {
    Fetching trio;
    trio.chunks = 2;
    trio.run(100);
    const std::uint64_t taken = trio.taken();
    trio.fill(9000);
    CHECK(trio.taken() == taken);
    CHECK(trio[trio.head].log().size() > 9000);
    trio.fill(2000);
    CHECK(trio.taken() > taken);
    CHECK(trio[trio.head].log().size() < 2000);
    trio.chunks = 1000;
    trio.run(200);
    CHECK(trio.installed() == 1);
    CHECK(trio[trio.late].status().digest == trio[trio.head].status().digest);
}

// Passes everything on, but answers "not now" to who reads a snapshot that is being written.
class NotNow final : public support::Forwarding {
public:
    using Forwarding::Forwarding;
    bool is_stuck = false;
    std::size_t begun_bytes = 0;  // of a snapshot that has not ended
    Errc begin_snapshot() override { return begun_bytes = 0, inner_.begin_snapshot(); }
    Errc write_snapshot(BytesView piece) override {
        return begun_bytes += piece.size(), inner_.write_snapshot(piece);
    }
    Errc end_snapshot(coord::Sequence first_needed, bool replaces) override {
        return begun_bytes = 0, inner_.end_snapshot(first_needed, replaces);
    }
    Errc read_snapshot(coord::Sequence snapshot, std::uint64_t offset, std::size_t size,
                       Bytes& out) override {
        if (is_stuck && snapshot == 0) return Errc::throttled_op;
        return inner_.read_snapshot(snapshot, offset, size, out);
    }
};

TEST_CASE("a snapshot of its own that is under way gives way to a leader's") {
    Trio trio(Fetching::often());
    trio.run();
    const std::uint32_t late = trio.follower(), head = trio.leader();
    NotNow disk(*trio.disks[late - 1]);
    ReplicaOptions options = trio.base;
    options.id = PeerId{late}, options.entropy = 77;
    trio.stop(late);
    trio.replicas[late - 1] = std::make_unique<Replica>(options, disk, *trio.wires[late - 1]);
    const SessionId session = trio.open(head, seconds(3000));
    disk.is_stuck = true;
    const auto fill = [&](const std::string& name, int count) {
        for (int i = 0; i < count; i++) {
            const Bytes path = "/" + name + std::to_string(i);
            REQUIRE(trio.create(head, session, path, Bytes(200, 'd')) == Errc::ok);
        }
    };
    fill("both", 15);
    REQUIRE(trio[late].status().applied == trio[head].status().applied);
    REQUIRE(trio[late].counters().snapshots_taken == 0);  // it is written, and not read again
    trio.filter = [&](Packet& packet) {
        return packet.from != PeerId{late} && packet.to != PeerId{late};
    };
    fill("without", 40);
    trio.filter = nullptr;
    trio.run(200);
    CHECK(trio[late].counters().snapshots_given_up == 1);
    CHECK(trio[late].counters().snapshots_installed == 0);  // all is there, and not read again
    disk.is_stuck = false;
    trio.run(200);
    CHECK(trio[late].counters().snapshots_installed == 1);
    CHECK(trio[late].counters().snapshots_given_up == 1);
    CHECK(trio[late].status().digest == trio[head].status().digest);
    fill("after", 12);
    CHECK(trio[late].counters().snapshots_taken > 0);
    trio.stop(late);
    trio.start(late);
    trio.run();
    CHECK(trio[late].status().role == Role::following);
    CHECK(trio[late].status().digest == trio[head].status().digest);
}

// It would have been told of a newer one, again and again, for as long as its disk is the slower.
TEST_CASE("a leader's snapshot that is there and not written yet: it is waited for, at leisure") {
    Trio trio(Fetching::often());
    trio.run();
    const std::uint32_t late = trio.follower(), head = trio.leader();
    NotNow disk(*trio.disks[late - 1]);
    const SessionId session = trio.open(head, seconds(3000));
    const auto fill = [&](const std::string& name, int count) {
        for (int i = 0; i < count; i++) {
            const Bytes path = "/" + name + std::to_string(i);
            REQUIRE(trio.create(head, session, path, Bytes(200, 'd')) == Errc::ok);
        }
    };
    trio.stop(late);
    fill("without", 40);
    ReplicaOptions options = trio.base;
    options.id = PeerId{late}, options.entropy = 77;
    disk.is_stuck = true;
    trio.replicas[late - 1] = std::make_unique<Replica>(options, disk, *trio.wires[late - 1]);
    trio.run(200);
    const std::uint64_t taken = trio[head].counters().snapshots_taken;
    fill("more", 40);
    CHECK(trio[head].counters().snapshots_taken == taken);
    CHECK(trio[late].counters().snapshots_installed == 0);
    int at_once = 0;
    for (int i = 0; i < 200; i++) {
        trio.step();
        if (trio[late].next_deadline() <= trio.now) at_once += 1;
    }
    CHECK(at_once == 0);
    disk.is_stuck = false;
    trio.run(4);
    CHECK(trio[late].counters().snapshots_installed == 1);
    CHECK(trio[late].counters().snapshots_given_up == 0);
    trio.run(200);
    CHECK(trio[head].counters().snapshots_taken > taken);
    CHECK(trio[late].status().digest == trio[head].status().digest);
    trio.stop(late);
}

// What it wrote would hold space in a file system that is short of it, and nothing would free it.
TEST_CASE("a leader's snapshot that does not come to its end leaves nothing in the storage") {
    for (const bool is_damaged : {false, true}) {
        CAPTURE(is_damaged);
        Trio trio(Fetching::often());
        trio.run();
        const std::uint32_t late = trio.follower(), head = trio.leader();
        NotNow disk(*trio.disks[late - 1]);
        ReplicaOptions options = trio.base;
        options.id = PeerId{late}, options.entropy = 77;
        options.snapshot_every_entries = 1000000;
        trio.stop(late);
        trio.replicas[late - 1] = std::make_unique<Replica>(options, disk, *trio.wires[late - 1]);
        const SessionId session = trio.open(head, seconds(3000));
        trio.filter = [&](Packet& packet) {
            return packet.from != PeerId{late} && packet.to != PeerId{late};
        };
        for (int i = 0; i < 60; i++) {
            const Bytes path = "/without" + std::to_string(i);
            REQUIRE(trio.create(head, session, path, Bytes(200, 'd')) == Errc::ok);
        }
        std::size_t most = 0, chunks = 0;
        trio.filter = [&](Packet& packet) {
            most = (std::max)(most, disk.begun_bytes);
            Message message;
            const bool is_chunk = packet.to == PeerId{late} &&
                                  coord::decode_message(packet.bytes, message) == Errc::ok &&
                                  message.type == MessageType::chunk;
            chunks += is_chunk;
            return chunks <= 3 || (packet.from != PeerId{late} && packet.to != PeerId{late});
        };
        if (is_damaged) {
            trio.filter = [&](Packet& packet) {
                most = (std::max)(most, disk.begun_bytes);
                Message message;
                if (packet.to != PeerId{late}) return true;
                if (coord::decode_message(packet.bytes, message) != Errc::ok) return true;
                if (message.type != MessageType::chunk || ++chunks != 4) return true;
                Bytes payload(message.payload);
                payload[payload.size() / 2] ^= 1;
                message.payload = payload;
                packet.bytes.clear();
                coord::encode_message(message, packet.bytes);
                return true;
            };
        }
        bool is_left = false;
        for (int i = 0; i < 3000 && !is_left; i++) {
            trio.run(1);
            is_left = most > 0 && trio[late].status().role == Role::looking;
        }
        REQUIRE(is_left);
        CHECK(disk.begun_bytes == 0);
        CHECK(trio[late].counters().snapshots_installed == 0);
        trio.filter = nullptr;
        trio.run(3000);
        CHECK(trio[late].counters().snapshots_installed == 1);
        CHECK(trio[late].status().digest == trio[head].status().digest);
        CHECK(disk.begun_bytes == 0);
    }
}

TEST_CASE("faults S7: a snapshot leaves in the log what a learner in reach has not received") {
    Trio trio(Fetching::often());
    trio.run();
    const std::uint32_t late = trio.follower(), head = trio.leader();
    const SessionId session = trio.open(head, seconds(3000));
    trio.filter = [&](Packet& packet) {
        return packet.to != PeerId{late} || type_of(packet) != MessageType::proposal;
    };
    for (int i = 0; i < 40; i++) {
        REQUIRE(trio.create(head, session, "/n" + std::to_string(i)) == Errc::ok);
    }
    CHECK(trio[head].counters().snapshots_taken >= 3);
    CHECK_FALSE(trio[late].tree().contains("/n0"));
    trio.filter = nullptr;
    trio.run(100);
    CHECK(trio[late].tree().contains("/n39"));
    CHECK(trio[late].counters().snapshots_installed == 0);
    CHECK(trio[head].leader_counters().snapshots_sent == 0);
}

TEST_CASE("what was asked before a snapshot was fetched is answered out of it") {
    Trio trio(Fetching::often());
    trio.run();
    const std::uint32_t late = trio.follower(), head = trio.leader();
    const SessionId own = trio.open(late, seconds(3000)), other = trio.open(head, seconds(3000));
    bool cut = false;
    trio.filter = [&](Packet& packet) {
        const bool to_it = packet.to == PeerId{late};
        const bool asks = type_of(packet) == MessageType::request;
        return (!to_it && (asks || packet.from != PeerId{late})) || !cut;
    };
    std::vector<std::string> ends;
    for (const char* const path : {"/asked", "/"}) {
        Request request = make(Kind::create, path);
        request.done = coord::OnCreated([&](const coord::Result<coord::Created>& r) {
            ends.push_back(r ? r->path : name(r.error()));
        });
        trio[late].submit(own, std::move(request));
    }
    bool opened = false;
    trio[late].open_session({seconds(3000)}, [&](coord::Result<SessionId> r) { opened = bool(r); });
    trio.step();
    cut = true;
    for (int i = 0; i < 40; i++) {
        REQUIRE(trio.create(head, other, "/n" + std::to_string(i), Bytes(200, 'd')) == Errc::ok);
    }
    CHECK(trio[head].tree().contains("/asked"));
    CHECK(ends.empty());
    CHECK_FALSE(opened);
    trio.filter = nullptr;
    trio.run(200);
    CHECK(trio[late].counters().snapshots_installed == 1);
    CHECK(ends == std::vector<std::string>{"/asked", "node_exists"});
    CHECK(opened);
    CHECK(trio[late].status().sessions == 3);
}

TEST_CASE("sessions are listed in a pong once a heartbeat, however many rounds there are") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    const SessionId session = trio.open(id, seconds(1)), busy = trio.open(leader);
    int pongs = 0, lists = 0;
    trio.filter = [&](Packet& packet) {
        Message message;
        REQUIRE(decode_message(packet.bytes, message) == Errc::ok);
        if (packet.from != PeerId{id} || message.type != MessageType::pong) return true;
        pongs += 1, lists += message.payload.empty() ? 0 : 1;
        return true;
    };
    for (int i = 0; i < 600; i++) {  // three seconds
        trio[leader].submit(busy, make(Kind::sync, "/"));
        trio.step();
    }
    CHECK(pongs > 150);
    CHECK(lists >= 29);
    CHECK(lists <= 61);  // half a heartbeat apart at least
    CHECK(trio[id].session_state(session) == SessionState::connected);
    CHECK(trio[id].certain_until(session) > trio.now + milliseconds(500));
}

TEST_CASE("without entropy each start opens sessions of its own, whatever the log is made of") {
    for (const std::uint32_t every : {100000u, 1u}) {
        ReplicaOptions options;
        options.snapshot_every_entries = every, options.log_entries_kept = 0;
        Alone a(options);
        std::vector<SessionId> ids;
        for (int i = 0; i < 4; i++) {
            for (int j = 0; j < 2; j++) {
                const SessionId id = a.open();
                for (const SessionId other : ids) CHECK(other != id);
                ids.push_back(id);
            }
            CHECK(a.replica->status().sessions == ids.size());
            a.restart(options);
        }
    }
}

TEST_CASE("P6 an answer to a sync of a former life ends none of this one") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    std::vector<Packet> late;  // what was answered to the former life
    const auto sync = [&] {
        const SessionId session = trio.open(id);
        auto ended = std::make_shared<Errc>(Errc::api_error);
        Request request = make(Kind::sync, "/");
        request.done = coord::OnDone([ended](const coord::Result<void>& r) { *ended = r.error(); });
        trio[id].submit(session, std::move(request));
        return ended;
    };
    trio.filter = [&](Packet& packet) {
        if (packet.to != PeerId{id} || type_of(packet) != MessageType::synced) return true;
        late.push_back(packet);
        return false;
    };
    CHECK(*sync() == Errc::api_error);
    trio.run(60);
    REQUIRE_FALSE(late.empty());
    const std::uint32_t epoch = trio[leader].status().epoch;
    trio.start(id);
    trio.run(100);
    trio.filter = [&](Packet& packet) {  // the leader never hears of the new one
        return packet.from != PeerId{id} || type_of(packet) != MessageType::sync;
    };
    const auto ended = sync();
    trio.run(60);
    REQUIRE(trio[id].status().serving);
    REQUIRE(trio[id].status().epoch == epoch);
    for (const Packet& packet : late) trio[id].receive(packet.from, packet.bytes);
    trio.run(10);
    CHECK(*ended == Errc::api_error);
    trio.filter = nullptr;
    trio.run(200);  // until it is asked again
    CHECK(*ended == Errc::ok);
}

TEST_CASE("P11 pings to a former life renew no lease of this one") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    std::vector<Packet> pings;
    trio.filter = [&](Packet& packet) {
        if (packet.to == PeerId{id} && type_of(packet) == MessageType::ping) {
            pings.push_back(packet);
        }
        return true;
    };
    trio.start(id);
    trio.open(id);
    trio.run(400);
    REQUIRE(pings.size() > 15);
    const std::uint32_t epoch = trio[leader].status().epoch;
    trio.filter = [&](Packet& packet) {  // the new life hears no ping of the leader's, nor is heard
        const MessageType type = type_of(packet);
        const bool to_it = packet.to == PeerId{id} && type == MessageType::ping;
        const bool of_it = packet.from == PeerId{id} && type == MessageType::pong;
        return !to_it && !of_it;
    };
    trio.start(id);
    SessionId session;
    trio[id].open_session({seconds(10)}, [&](coord::Result<SessionId> r) {
        REQUIRE(r);
        session = *r;
    });
    trio.run(40);
    REQUIRE(session != SessionId{});
    const Time until = trio[id].certain_until(session);
    CHECK(until > trio.now);
    for (const Packet& ping : pings) {
        trio[id].receive(ping.from, ping.bytes);
        trio.run(20);
    }
    REQUIRE(trio[id].status().serving);
    REQUIRE(trio[id].status().epoch == epoch);
    CHECK(trio[id].certain_until(session) == until);
}

TEST_CASE("P11 no lease before what stands before it is applied here: it may be an expiry") {
    for (const bool leads : {true, false}) {
        CAPTURE(leads);
        Trio trio;
        trio.run();
        const std::uint32_t head = trio.leader(), id = leads ? head : trio.follower();
        const std::uint32_t writer = leads ? trio.follower() : head;
        const SessionId session = trio.open(id, seconds(60)), other = trio.open(writer);
        trio.disks[id - 1]->hold_flushes();
        CHECK(trio.create(writer, other, "/a") == Errc::ok);  // the two others have it durably
        const Time until = trio[id].certain_until(session);
        CHECK(until > trio.now);
        trio.run(40);  // a leader does not wait for its disk for longer than Timing::silence
        REQUIRE(trio[id].status().serving);
        CHECK(trio[id].status().applied < trio[id].status().committed);
        CHECK(trio[id].certain_until(session) == until);
        trio.disks[id - 1]->stop_holding();
        trio.run(60);
        CHECK(trio[id].certain_until(session) > until + milliseconds(500));
    }
}

// What this replica touched meanwhile was not this session: it did not know of it.
TEST_CASE("P11 no lease from a touch before the session was known here") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    trio.filter = [&](Packet& packet) {  // it does not hear of the open
        return packet.to != PeerId{id} || type_of(packet) != MessageType::proposal;
    };
    const Zxid before = trio[leader].status().last;
    SessionId session;
    trio[id].open_session({seconds(1)}, [&](coord::Result<SessionId> r) {
        REQUIRE(r);
        session = *r;
    });
    for (int i = 0; i < 60 && trio[leader].status().last == before; i++) trio.step();
    REQUIRE(trio[leader].status().last > before);
    const Time numbered = trio.now;
    trio.run(80);
    REQUIRE(session == SessionId{});
    trio.filter = nullptr;
    for (int i = 0; i < 60 && session == SessionId{}; i++) trio.step();
    REQUIRE(session != SessionId{});
    CHECK(trio[id].certain_until(session) <= numbered + seconds(1));
    trio.run(60);
    CHECK(trio[id].certain_until(session) > numbered + seconds(1));
}

TEST_CASE("P11 a session that is being closed is certain of nothing") {
    Alone a;
    const SessionId id = a.open();
    CHECK(a.replica->certain_until(id) > a.now);
    a.disk.hold_flushes();
    a.submit(id, make(Kind::close, ""), "close");
    CHECK(a.replica->certain_until(id) == Time{});
    a.poll(3);
    CHECK(a.lines.empty());
    CHECK(a.replica->session_state(id) == SessionState::connected);
    CHECK(a.replica->certain_until(id) == Time{});
    a.disk.stop_holding();
    a.poll(3);
    CHECK(a.lines == Lines{"close"});
}

TEST_CASE("a digest that differs from the leader's: failed, and it says so") {
    Trio trio;
    trio.run();
    const std::uint32_t follower = trio.follower(), leader = trio.leader();
    const SessionId session = trio.open(leader);
    trio.filter = [&](Packet& packet) {
        Message message;
        if (decode_message(packet.bytes, message) != Errc::ok) return true;
        if (packet.to != PeerId{follower} || message.digest == 0) return true;
        message.digest ^= 1;
        packet.bytes.clear();
        encode_message(message, packet.bytes);
        return true;
    };
    CHECK(trio.create(leader, session, "/a") == Errc::ok);
    CHECK(trio[follower].status().role == Role::failed);
    CHECK(std::string(trio[follower].status().reason) == "the state differs from the leader's");
    CHECK(trio[leader].status().serving);
}

TEST_CASE("messages: damaged, foreign, of strangers and other epochs are counted and dropped") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    Replica& replica = trio[id];
    const auto dropped = [&](PeerId from, const Message& message) {
        const coord::ReplicaCounters before = replica.counters();
        Bytes bytes;
        encode_message(message, bytes);
        replica.receive(from, bytes);
        replica.poll(trio.now);
        const coord::ReplicaCounters after = replica.counters();
        CHECK(after.messages_received == before.messages_received + 1);
        return std::string(after.dropped_corrupt > before.dropped_corrupt   ? "corrupt"
                           : after.dropped_foreign > before.dropped_foreign ? "foreign"
                           : after.dropped_stale > before.dropped_stale     ? "stale"
                                                                            : "taken");
    };
    Message good;
    good.type = MessageType::commit;
    good.from = PeerId{leader}, good.to = PeerId{id}, good.ensemble = 77;
    good.epoch = replica.status().epoch;
    CHECK(dropped(PeerId{leader}, good) == "taken");
    Message bad = good;
    bad.ensemble = 78;
    CHECK(dropped(PeerId{leader}, bad) == "foreign");
    bad = good, bad.to = PeerId{leader};
    CHECK(dropped(PeerId{leader}, bad) == "foreign");
    CHECK(dropped(PeerId{6 - id - leader}, good) == "foreign");  // not who it says it is
    bad = good, bad.from = PeerId{4};
    CHECK(dropped(PeerId{4}, bad) == "stale");  // it may observe; and does not lead
    bad.from = PeerId{};
    CHECK(dropped(PeerId{}, bad) == "foreign");
    bad = good, bad.from = PeerId{id};
    CHECK(dropped(PeerId{id}, bad) == "foreign");
    bad = good, bad.epoch = 0;
    CHECK(dropped(PeerId{leader}, bad) == "stale");
    bad = good, bad.from = PeerId{6 - id - leader};
    CHECK(dropped(bad.from, bad) == "stale");
    bad = good, bad.type = MessageType::ack;
    CHECK(dropped(PeerId{leader}, bad) == "stale");
    const std::uint64_t corrupt = replica.counters().dropped_corrupt;
    for (const BytesView bytes : {BytesView(""), BytesView("x"), BytesView("GET / HTTP/1.1")}) {
        replica.receive(PeerId{leader}, bytes);
    }
    replica.poll(trio.now);
    CHECK(replica.counters().dropped_corrupt == corrupt + 3);
    CHECK(replica.status().serving);
}

TEST_CASE("the inbox is bounded; what is over it is counted and dropped") {
    Alone a;
    a.poll();
    const Bytes large(1024 * 1024, 'x');
    for (int i = 0; i < 20; i++) a.replica->receive(PeerId{2}, large);
    CHECK(a.replica->counters().dropped_overflow >= 4);
    CHECK(a.replica->counters().dropped_overflow <= 6);
    const std::uint64_t kept = 20 - a.replica->counters().dropped_overflow;
    a.poll(1);
    CHECK(a.replica->counters().dropped_corrupt == kept);
    a.replica->receive(PeerId{2}, large);
    a.poll(1);
    CHECK(a.replica->counters().dropped_corrupt == kept + 1);
}

TEST_CASE("a message that comes while poll sends is looked at in the next poll") {
    coord::MemoryStorage disk;
    Wire wire;
    ReplicaOptions options;
    options.voters = {PeerId{1}, PeerId{2}}, options.entropy = 3;
    Replica replica(options, disk, wire);
    wire.on_send = [&](PeerId, BytesView) { replica.receive(PeerId{2}, "junk"); };
    replica.poll(Time{1});
    wire.on_send = nullptr;
    CHECK(replica.counters().messages_sent == 1);
    CHECK(replica.counters().dropped_corrupt == 0);
    replica.poll(Time{1});
    CHECK(replica.counters().dropped_corrupt == 1);
}

TEST_CASE("a peer that confirms another's outcomes away: an error for the caller, no assertion") {
    Trio trio;
    trio.run();
    const std::uint32_t owner = trio.follower(), leader = trio.leader();
    const std::uint32_t hostile = 6 - owner - leader;
    const SessionId session = trio.open(owner);
    Errc error = Errc::ok;
    Request request = make(Kind::create, "/mine");
    request.done = coord::OnCreated([&](const coord::Result<coord::Created>& r) {
        error = r.error();
    });
    Request sync = make(Kind::sync, "/");
    trio.filter = [&](Packet& packet) {
        return packet.to != PeerId{owner} || packet.bytes[34] != 19;  // SYNCED is lost
    };
    trio[owner].submit(session, std::move(sync));  // stands in front until its answer gets through
    trio[owner].submit(session, std::move(request));
    trio.run(10);
    for (std::uint64_t cxid = 1; cxid <= 3; cxid++) {
        Bytes payload, body;
        coord::Writer(body).bytes("/x"), coord::Writer(body).i32(-1);
        coord::Writer out(payload);
        out.u64(session.value), out.u64(cxid), out.u64(cxid == 3 ? 2 : 0), out.u8(4);
        out.bytes(body);
        Message message;
        message.type = MessageType::request, message.ensemble = 77;
        message.from = PeerId{hostile}, message.to = PeerId{leader};
        message.epoch = trio[leader].status().epoch, message.payload = payload;
        Bytes bytes;
        encode_message(message, bytes);
        trio[leader].receive(PeerId{hostile}, bytes);
    }
    trio.run(10);
    trio.filter = nullptr;
    trio.run(100);
    CHECK(error == Errc::outcome_unknown);
}

TEST_CASE("a peer that asks in a guarded write's place: an answer of fewer parts, no assertion") {
    for (const bool is_multi : {false, true}) {
        Trio trio;
        trio.run();
        const std::uint32_t owner = trio.follower(), leader = trio.leader();
        const SessionId session = trio.open(owner);
        int answers = 0;
        const auto count = [&] { answers += 1; };
        Request request = make(Kind::multi, "");
        request.parts = {coord::Op::guard("/", coord::Zxid{}), coord::Op::create("/x", "")};
        request.guards = 1;
        request.done = coord::OnCreated([&](const coord::Result<coord::Created>&) { count(); });
        if (is_multi) request.done = coord::OnMulti([&](const coord::Multi&) { count(); });
        trio.filter = [&](Packet& packet) { return packet.from != PeerId{owner}; };
        trio[owner].submit(session, std::move(request));
        trio.run(2);
        Bytes payload;
        coord::Writer out(payload);
        out.u64(session.value), out.u64(1), out.u64(0);
        out.u8(static_cast<std::uint8_t>(coord::OpCode::multi)), out.bytes(Bytes(4, '\0'));
        Message message;
        message.type = MessageType::request, message.ensemble = 77;
        message.from = PeerId{6 - owner - leader}, message.to = PeerId{leader};
        message.epoch = trio[leader].status().epoch, message.payload = payload;
        Bytes bytes;
        encode_message(message, bytes);
        trio[leader].receive(message.from, bytes);
        trio.run(4);
        trio.filter = nullptr;
        trio.run(100);
        CHECK(answers == 1);
        CHECK_FALSE(trio[owner].tree().contains("/x"));
    }
}

// Random messages, well-formed and mutated, recorded and made up, to and from everybody.
static void monkey(std::uint64_t seed, int steps) {
    coord::Rng rng(seed);
    ReplicaOptions options;
    options.snapshot_every_entries = 20, options.log_entries_kept = 5;
    Trio trio(options);
    std::deque<Packet> seen;
    trio.filter = [&](Packet& packet) {
        if (seen.size() > 200) seen.pop_front();
        seen.push_back(packet);
        return rng.chance(950);
    };
    const auto any = [&]() -> std::uint64_t {
        switch (rng.below(6)) {
            case 0: return 0;
            case 1: return UINT64_MAX;
            case 2: return rng.below(10);
            case 3: return trio[1].status().last.value + rng.below(3);
            case 4: return trio[2].status().epoch;
            default: return rng.next();
        }
    };
    for (int step = 0; step < steps; step++) {
        const auto id = static_cast<std::uint32_t>(1 + rng.below(3));
        Packet packet;
        if (!seen.empty()) packet = seen[rng.below(seen.size())];
        Message m;
        if (seen.empty() || decode_message(packet.bytes, m) != Errc::ok) m.ensemble = 77;
        const Bytes payload = Bytes(m.payload);
        m.payload = payload;
        if (rng.chance(300)) m.type = static_cast<MessageType>(1 + rng.below(20));
        for (std::uint64_t changes = rng.below(4); changes > 0; changes--) {
            switch (rng.below(14)) {
                case 0: m.attempt = any(); break;
                case 1: m.leader = PeerId{static_cast<std::uint32_t>(any())}; break;
                case 2: m.current_epoch = static_cast<std::uint32_t>(any()); break;
                case 3: m.zxid = Zxid{any()}; break;
                case 4: m.crc = static_cast<std::uint32_t>(any()); break;
                case 5: m.commit = Zxid{any()}; break;
                case 6: m.digest = rng.chance(20) ? any() : m.digest; break;
                case 7: m.sequence = any(); break;
                case 8: m.touch = any(), m.confirmed = any(); break;
                case 9: m.offset = any(), m.total = any(); break;
                case 10: m.phase = static_cast<std::uint8_t>(any()); break;
                case 11: m.payload = m.payload.substr(m.payload.size() / 2); break;
                case 12: m.nonce = any(); break;
                default: m.epoch += rng.chance(100) ? 1u : 0u;
            }
        }
        m.from = PeerId{static_cast<std::uint32_t>(1 + rng.below(3))}, m.to = PeerId{id};
        Bytes bytes;
        encode_message(m, bytes);
        if (rng.chance(50)) bytes[rng.below(bytes.size())] = static_cast<char>(rng.next());
        trio[id].receive(m.from, bytes);
        if (rng.chance(400)) trio.step(milliseconds(static_cast<std::int64_t>(rng.below(8))));
        if (rng.chance(5)) trio[id].open_session({seconds(1)}, [&](coord::Result<SessionId> r) {
            if (!r) return;
            trio[id].submit(*r, make(Kind::create, "/m" + std::to_string(rng.below(30))));
        });
        if (step % 50 == 0) trio[id].audit();
        // Whoever was talked into failing, or has promised the last of all epochs, starts anew.
        const coord::ReplicaStatus status = trio[id].status();
        if (status.role != Role::failed && status.accepted_epoch < Zxid::epoch_max) continue;
        *trio.disks[id - 1] = coord::MemoryStorage{};
        trio.start(id);
    }
    for (std::uint32_t id = 1; id <= 3; id++) trio[id].audit();
}

TEST_CASE("a hostile-peer monkey never trips an assertion") {
    for (std::uint64_t seed = 1; seed <= 10; seed++) {
        CAPTURE(seed);
        monkey(support::seed + seed, 20000);
    }
}

TEST_CASE("alone: it founds itself, unless it may not; and its storage is its own for ever") {
    Alone a;
    a.poll();
    CHECK(a.replica->status().admitted);
    CHECK(a.replica->status().storage == a.disk.id());
    CHECK(a.replica->status().last == Zxid{1, 1});
    ReplicaOptions options;
    options.may_found = false;
    a.restart(options);
    a.poll();
    CHECK(a.replica->status().serving);  // it has founded already
    Alone b(options);
    b.poll();
    CHECK(b.replica->status().role == Role::failed);
    CHECK(std::string(b.replica->status().reason) == "this storage may not found an ensemble");
    CHECK(b.disk.appended() == 0);
}

TEST_CASE("a damaged storage: alone it has failed, with others it starts over and is admitted") {
    Alone a;
    a.poll();
    REQUIRE(a.disk.append("rot") == Errc::ok);
    REQUIRE(a.disk.flush() == Errc::ok);
    a.restart();
    CHECK(a.replica->status().role == Role::failed);
    CHECK(std::string(a.replica->status().reason) == "a record in the log is damaged");
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    REQUIRE(trio.create(leader, trio.open(leader), "/a") == Errc::ok);
    trio.stop(id);
    const std::uint64_t old = trio.disks[id - 1]->id();
    REQUIRE(trio.disks[id - 1]->append("rot") == Errc::ok);
    REQUIRE(trio.disks[id - 1]->flush() == Errc::ok);
    trio.start(id);
    CHECK(std::string(trio[id].status().damage) == "a record in the log is damaged");
    CHECK_FALSE(trio[id].status().admitted);
    trio.run(400);
    CHECK(trio[id].status().admitted);
    CHECK(trio[id].status().storage != old);
    CHECK(trio[id].tree().contains("/a"));
    CHECK(trio[leader].leader_counters().admissions >= 2);
}

TEST_CASE("a storage that cannot start over: damage is the end of it") {
    struct Stubborn final : coord::Storage {
        coord::MemoryStorage disk;
        Errc open(coord::RecoverySink&, const coord::StorageOwner&) override {
            return Errc::corrupt;
        }
        Errc append(BytesView) override { return Errc::ok; }
        Errc begin_snapshot() override { return Errc::ok; }
        Errc write_snapshot(BytesView) override { return Errc::ok; }
        Errc end_snapshot(coord::Sequence, bool) override { return Errc::ok; }
        Errc read_snapshot(coord::Sequence, std::uint64_t, std::size_t, Bytes&) override {
            return Errc::ok;
        }
        Errc flush() override { return Errc::ok; }
        coord::Sequence appended() const override { return 0; }
        coord::Sequence durable() const override { return 0; }
        Errc health() const override { return Errc::ok; }
        std::uint64_t id() const override { return 5; }
    } disk;
    Wire wire;
    ReplicaOptions options;
    options.voters = {PeerId{1}, PeerId{2}}, options.entropy = 3;
    Replica replica(options, disk, wire);
    CHECK(replica.status().role == Role::failed);
    CHECK(std::string(replica.status().reason) == "the storage did not open");
    CHECK(disk.may_found());
}

TEST_CASE("a refusal is for one life: another nonce does nothing, its own is the end") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    std::uint64_t nonce = 0;
    trio.filter = [&](Packet& packet) {
        Message message;
        const bool decoded = decode_message(packet.bytes, message) == Errc::ok;
        if (decoded && packet.from == PeerId{id}) nonce = message.nonce;
        return true;
    };
    trio.run();
    REQUIRE(nonce != 0);
    Message refused;
    refused.type = MessageType::refused, refused.ensemble = 77;
    refused.from = PeerId{leader}, refused.to = PeerId{id};
    refused.phase = static_cast<std::uint8_t>(coord::Refusal::twice);
    for (const std::uint64_t meant : {nonce + 1, std::uint64_t{0}, nonce}) {
        refused.confirmed = meant;
        Bytes bytes;
        encode_message(refused, bytes);
        trio[id].receive(PeerId{leader}, bytes);
        trio[id].poll(trio.now);
        CHECK((trio[id].status().role == Role::failed) == (meant == nonce));
    }
    CHECK(std::string(trio[id].status().reason) == "another replica is alive under this id");
}

TEST_CASE("an admit that a voter asks for is not numbered") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    Bytes body, payload;
    coord::VoterTable::write({{PeerId{id}, 4711}}, body);
    coord::Writer out(payload);
    out.u64(0), out.u64(0), out.u64(0), out.u8(6), out.bytes(body);
    Message message;
    message.type = MessageType::request, message.ensemble = 77;
    message.from = PeerId{id}, message.to = PeerId{leader};
    message.epoch = trio[leader].status().epoch, message.payload = payload;
    Bytes bytes;
    encode_message(message, bytes);
    const Zxid before = trio[leader].status().last;
    trio[leader].receive(PeerId{id}, bytes);
    trio.run();
    CHECK(trio[leader].status().last == before);
    CHECK(trio[leader].leader_counters().requests_ignored == 1);
    CHECK(coord::judge_request(coord::OpCode::admit, body, {}) == Errc::unimplemented);
}

// Else an election among those that are near would be over before that one is heard, each time.
TEST_CASE("a hint that a voter is gone holds until it is heard to look for a leader") {
    int steps[2] = {0, 0};  // until there is a leader among the two others: the last one, or not
    for (const bool returns : {false, true}) {
        Trio trio;
        trio.run();
        const std::uint32_t leader = trio.leader(), away = trio.follower();
        trio.stop(away);
        trio[leader].forget(PeerId{away});
        if (returns) trio.start(away), trio.run();
        trio.filter = [](Packet&) { return false; };
        trio.run(300);
        REQUIRE(trio[leader].status().role == Role::looking);
        trio.filter = [away](Packet& packet) {
            return packet.to != PeerId{away} && packet.from != PeerId{away};
        };
        while (trio[leader].status().role != Role::leading) {
            trio.step();
            REQUIRE(++steps[returns ? 1 : 0] < 100);
        }
    }
    CHECK(steps[0] < steps[1]);  // one that may come is waited for
}

TEST_CASE("R6 a storage that has learned everything and is not admitted stands for nothing") {
    Trio trio;
    trio.run();
    const std::uint32_t id = trio.follower(), leader = trio.leader();
    REQUIRE(trio.create(leader, trio.open(leader), "/a") == Errc::ok);
    trio.stop(id);
    *trio.disks[id - 1] = coord::MemoryStorage{};
    trio.start(id);
    trio.run(60);  // less than the time of silence: it is admitted after that
    REQUIRE(trio[id].status().last == trio[leader].status().last);
    REQUIRE_FALSE(trio[id].status().admitted);
    int votes = 0;
    trio.filter = [&](Packet& packet) {
        Message message;
        REQUIRE(decode_message(packet.bytes, message) == Errc::ok);
        const bool votes_now = message.type == MessageType::notification &&
                               message.phase == static_cast<std::uint8_t>(Role::looking);
        if (!votes_now || packet.from != PeerId{id}) return true;
        votes += 1;
        CHECK(message.zxid == Zxid{});
        CHECK(message.current_epoch == 0);
        return true;
    };
    trio.stop(leader);
    trio.run(300);
    CHECK(votes > 0);
    CHECK(trio.leader() == 0);
    trio.filter = nullptr;
    trio.start(leader);
    trio.run(400);
    CHECK(trio.leader() != 0);
    CHECK(trio[id].status().admitted);
}

}  // TEST_SUITE
