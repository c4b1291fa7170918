// Histories with one flaw each: a checker that does not find it is worth nothing. The same history
// without the flaw has to pass.
#pragma once

#include "checkers.hpp"

#include <deque>
#include <functional>

namespace sim {

// Writes a log by hand: two replicas apply it, a client asks and is told what the model says.
class Script {
public:
    Checker checker;
    Zxid last;
    Time now{1000000000};
    SessionId session;

    Bytes body_of_create(const Bytes& path, const Bytes& data, coord::CreateMode mode,
                         std::int64_t ttl_ms = 0) {
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.bytes(data), out.i32(static_cast<std::int32_t>(mode));
        if (ttl_ms != 0) out.i64(ttl_ms);
        return body;
    }
    // With a ttl of 10 ms, and then 11 ms later, unless that is too early, its reap.
    Txn reap(const Bytes& path, std::int64_t later_ms = 11) {
        const Model::Version* const node = checker.model().at(path, last);
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.zxid(node->stat.czxid);
        bodies.push_back(body);
        Txn txn = next(OpCode::reap, bodies.back());
        txn.time_ms += later_ms;
        return txn;
    }
    void create_with_ttl(const Bytes& path) {
        constexpr auto mode = coord::CreateMode::persistent_with_ttl;
        const std::size_t number =
            checker.called(session, {Call::create, path, "x", static_cast<std::int32_t>(mode),
                                     false, 10});
        apply(next(OpCode::create, body_of_create(path, "x", mode, 10), session, ++cxid));
        tell(number, told_of_last());
    }
    // What a replica that judges nothing would say of a reap.
    void believe(const Txn& txn, Errc error) {
        coord::Outcome outcome;
        outcome.zxid = last = txn.zxid, outcome.op = txn.op, outcome.error = error;
        checker.applied(1, txn, &outcome, 1, now);
    }
    Txn next(OpCode op, BytesView body, SessionId by = {}, std::uint64_t number = 0) {
        Txn txn;
        txn.zxid = Zxid{1, last.counter() + 1};
        txn.previous = last;
        txn.time_ms = 5;
        txn.session = by, txn.cxid = number, txn.op = op, txn.body = body;
        return txn;
    }
    // What the engine would say, from a machine of its own.
    void apply(const Txn& txn, std::uint32_t replica = 1) {
        struct Nobody final : coord::ChangeSink {
            void on_created(BytesView, Zxid, BytesView) override {}
            void on_deleted(BytesView, Zxid, BytesView) override {}
            void on_data_changed(BytesView, Zxid, BytesView) override {}
            void on_children_changed(BytesView, Zxid, BytesView) override {}
        } nobody;
        last = txn.zxid;
        const coord::Outcome* outcome = machine.apply(txn, nobody);
        checker.applied(replica, txn, outcome, machine.digest(), now);
    }
    void open(bool tell = true) {
        Bytes body;
        coord::Writer out(body);
        out.u64(++nonces), out.u32(1000), out.u64(3), out.u64(4);
        apply(next(OpCode::open_session, body));
        session = SessionId{last.value};
        cxid = 0;
        if (tell) checker.opened(session, 1, now);
    }
    void open_local() {
        session = SessionId{(std::uint64_t{1} << 63) + ++nonces};
        cxid = 0;
        checker.opened_local(session, 1, now, last);
    }
    void upgrade() {
        Bytes body;
        coord::Writer out(body);
        out.u64(session.value), out.u32(1000), out.u64(3), out.u64(4), out.u8(1);
        apply(next(OpCode::open_session, body));
    }
    static coord::VoterTable::Members members_of(const std::vector<std::uint32_t>& ids) {
        coord::VoterTable::Members members;
        for (const std::uint32_t id : ids) members.emplace_back().id = coord::PeerId{id};
        return members;
    }
    // Asks for the ones, and the log has the others, whether its session may or not.
    void reconfigure(const std::vector<std::uint32_t>& asked, const std::vector<std::uint32_t>& had,
                     bool may = true) {
        Bytes admit;
        coord::Writer out(admit);
        out.u32(1), out.u32(1), out.u64(1);
        if (machine.voters().members().empty()) apply(next(OpCode::admit, admit));
        open();
        if (may) {
            const std::size_t auth = ask(Call::add_auth, {}, Bytes(coord::super_user));
            apply(next(OpCode::auth, coord::super_user, session, ++cxid));
            tell(auth, told_of_last());
        }
        coord::Reconfig change;
        change.members = members_of(asked);
        Bytes question, body;
        coord::encode_reconfig(change, question);
        asked_ = ask(Call::reconfig, {}, question);
        coord::VoterTable::write(coord::ReconfigStep::joint, members_of(had), {}, body);
        apply(next(OpCode::reconfig, body, session, ++cxid));
    }
    void tell_config(bool has_ended) {
        const Model::Version* const config = checker.model().at(config_node, last);
        Told told;
        told.data = config->data, told.stat = config->stat;
        told.zxid = has_ended ? config->zxid : last;
        tell(asked_, told);
    }
    std::size_t asked_ = 0;
    std::size_t ask(Call call, const Bytes& path, const Bytes& data = {}, std::int32_t number = 0,
                    bool watch = false) {
        return checker.called(session, {call, path, data, number, watch});
    }
    void tell(std::size_t number, const Told& told) {
        checker.answered(session, number, told, last);
    }
    std::size_t stay(const Bytes& path) {
        const std::size_t number = ask(Call::add_watch, path, {}, path == "/" ? 1 : 0, true);
        tell(number, {});
        return number;
    }
    // The n-th of what has changed, children apart, as a stream of all of it has it.
    coord::Change change(std::size_t n) const {
        const std::vector<Model::PathChange>& all = checker.model().all_changes();
        std::size_t place = 0;
        for (;; place++) {
            if (all[place].type == EventType::children_changed) continue;
            if (n == 0) break;
            n -= 1;
        }
        coord::Change result;
        result.type = all[place].type, result.path = all[place].path;
        result.position = all[place].zxid, result.is_last = true;
        const bool is_gone = result.type == EventType::deleted;
        const Zxid at(all[place].zxid.value - (is_gone ? 1 : 0));
        const Model::Version* const node = checker.model().at(result.path, at);
        result.stat = node->stat;
        if (!is_gone) result.bytes = node->data;
        return result;
    }
    std::size_t since(const Bytes& path, coord::Watched what, Zxid zxid) {
        Asked asked{Call::watch_since, path, {}, static_cast<std::int32_t>(what), true};
        asked.least = zxid;
        return checker.called(session, asked);
    }
    void stream(const Bytes& path, Zxid from) { checker.streams(1, path, from, 1, true); }
    void stream_of_two() {
        open(), stream("/", last);
        create("/a"), create("/b");
    }
    Told told_of_last(Errc error = Errc::ok) {
        const std::vector<Answer>& answers = checker.model().sessions().at(session).answers.back();
        Told told;
        told.error = error, told.path = answers.back().path, told.stat = answers.back().stat;
        return told;
    }
    // A whole create: asked for, applied, answered.
    std::size_t create(const Bytes& path, coord::CreateMode mode = {}, bool answer = true) {
        const std::size_t number = ask(Call::create, path, "x", static_cast<std::int32_t>(mode));
        apply(next(OpCode::create, body_of_create(path, "x", mode), session, ++cxid));
        if (answer) tell(number, told_of_last());
        return number;
    }
    Told state_of(const Bytes& path) {
        const Model::Version* node = checker.model().at(path, last);
        Told told;
        told.zxid = last;
        if (node == nullptr || !node->present) told.error = Errc::no_node;
        if (told.error != Errc::ok) return told;
        told.stat = node->stat, told.data = node->data, told.is_null = node->is_null;
        return told;
    }
    std::size_t get(const Bytes& path, bool watch = false) {
        const std::size_t number = ask(Call::get, path, {}, 0, watch);
        tell(number, state_of(path));
        return number;
    }
    // Several at one moment, and what is right to be told.
    std::size_t ask_read(const std::vector<Bytes>& paths, Zxid least = {}) {
        Asked asked{Call::read, {}, {}, 0, false};
        asked.least = least, asked.paths = paths;
        asked.queries.resize(paths.size(), coord::Query::get({}));
        return checker.called(session, asked);
    }
    Told read_of(const std::vector<Bytes>& paths) {
        Told told;
        told.zxid = last;
        for (const Bytes& path : paths) {
            const Told one = state_of(path);
            coord::Found& found = told.found.emplace_back();
            found.error = one.error, found.zxid = last, found.stat = one.stat;
            found.bytes = one.data;
        }
        return told;
    }
    void set(const Bytes& path, bool answer = true) {
        const std::size_t number = ask(Call::set, path, "y", coord::any_version);
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.bytes("y"), out.i32(coord::any_version);
        apply(next(OpCode::set, body, session, ++cxid));
        if (answer) tell(number, told_of_last());
    }
    // A multi under guards, or a write that is one on its way, and is told what is right.
    Zxid czxid_of(const Bytes& path) { return checker.model().at(path, last)->stat.czxid; }
    std::size_t ask_parts(Call call, const std::vector<coord::Op>& parts) {
        Asked asked{call, {}, body_of(parts), 0, false};
        asked.guards = parts.size() - 1, asked.has_stat = true;
        bodies.push_back(asked.data);
        return checker.called(session, asked);
    }
    std::size_t do_parts(Call call, const std::vector<coord::Op>& parts) {
        const std::size_t number = ask_parts(call, parts);
        apply(next(OpCode::multi, bodies.back(), session, ++cxid));
        return number;
    }
    Told told_of_part() {
        const std::vector<Answer>& answers = checker.model().sessions().at(session).answers.back();
        Told told;
        const coord::Part& part = answers.back().parts.back();
        told.error = answers.back().error, told.path = part.path, told.stat = part.stat;
        told.is_new = part.stat.czxid == part.stat.mzxid;
        return told;
    }
    void add_auth(const Bytes& id) {
        const Bytes identity = coord::Acl(0, "token", id).bytes();
        const std::size_t number = ask(Call::add_auth, {}, identity);
        apply(next(OpCode::auth, identity, session, ++cxid));
        tell(number, told_of_last());
    }
    void set_acl(const Bytes& path, const coord::Acl& acl) {
        Asked asked{Call::set_acl, path, {}, coord::any_version, false};
        asked.acl = acl.bytes();
        const std::size_t number = checker.called(session, asked);
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.bytes(acl.bytes()), out.i32(coord::any_version);
        apply(next(OpCode::set_acl, body, session, ++cxid));
        tell(number, told_of_last());
    }
    // The session is "me", and /a is private to that; another one, which this is now, is nobody.
    void hide() {
        open(), create("/a"), add_auth("me"), set_acl("/a", coord::creator_acl());
        owner = session, owner_cxid = cxid;
        open();
    }
    void set_by_owner(const Bytes& path) {
        const SessionId other = std::exchange(session, owner);
        const std::uint64_t number = std::exchange(cxid, owner_cxid);
        set(path);
        owner_cxid = std::exchange(cxid, number), session = other;
    }
    Told refused() const {
        Told told;
        told.error = Errc::no_auth;
        return told;
    }
    // An entry of this session stands in the log; what another session wrote later is observed;
    // only then is the entry asked for.
    void ask_after_the_fact() {
        const SessionId one = session;
        apply(next(OpCode::create, body_of_create("/c", "x", {}), one, 1));
        const Told told = told_of_last();
        open(), create("/b");
        session = one;
        tell(ask(Call::create, "/c", "x"), told);
    }
    // Its replica jumps over the end, or does not.
    void end_and_tell(std::size_t number, Errc error, bool jumps = false) {
        now = now + coord::seconds(9), expire(session);
        if (jumps) checker.installed(1, last, machine.digest());
        Told told;
        told.error = error;
        tell(number, told);
    }
    void expire(SessionId who) { apply(next(OpCode::close_session, BytesView("\1", 1), who)); }

    coord::Machine machine{coord::Limits{}, 1};
    std::uint64_t nonces = 0;
    std::uint64_t cxid = 0;
    SessionId owner;
    std::uint64_t owner_cxid = 0;
    std::deque<Bytes> bodies;
};

struct Flaw {
    const char* property;  // null: no flaw
    const char* name;
    void (*play)(Script&);
};

inline const std::vector<Flaw>& flaws_of_the_log() {
    static const std::vector<Flaw> flaws = {
        {nullptr, "a sound history",
         [](Script& s) {
             s.open(), s.create("/a"), s.create("/a/b"), s.get("/a/b", true);
             const Told read = s.read_of({"/a", "/none"});
             s.tell(s.ask_read({"/a", "/none"}, s.last), read);
             s.tell(s.ask_read({"/a", "/none"}, coord::newest), read);
             s.create("/e", coord::CreateMode::ephemeral);
             s.create_with_ttl("/t"), s.create("/t/x", coord::CreateMode::container);
             s.create_with_ttl("/u"), s.apply(s.reap("/u")), s.apply(s.reap("/t"));
             s.checker.all_reaped(99);
             using coord::Op;
             s.create("/locks"), s.create("/locks/x"), s.create("/locks/x/1");
             const Op guard = Op::guard("/locks/x/1", s.czxid_of("/locks/x/1"));
             const std::size_t put =
                 s.do_parts(Call::part, {guard, Op::create_or_set("/a", "z")});
             s.tell(put, s.told_of_part());
             const std::size_t multi =
                 s.do_parts(Call::multi, {guard, Op::create_with_parents("/x/y", "z")});
             Told told;
             told.parts = {{Errc::ok, "/x/y", s.told_of_part().stat}};
             s.tell(multi, told);
             s.checker.whole_state(1, s.machine);
             s.checker.established(1, 1, 2, s.last);
             s.checker.settled(s.session, s.last);
             s.now = s.now + coord::seconds(5);
             s.checker.dropped(s.session), s.expire(s.session);
             s.checker.whole_state(1, s.machine);
             s.open();
             const std::size_t doubt = s.create("/d", {}, false);
             s.end_and_tell(doubt, Errc::outcome_unknown, true);
             s.open();
             s.end_and_tell(s.ask(Call::create, "/d", "x"), Errc::session_expired);
             Bytes voters;
             coord::Writer out(voters);
             out.u32(2), out.u32(7), out.u64(1), out.u32(1), out.u64(2);
             s.apply(s.next(OpCode::admit, voters));
             s.checker.whole_state(1, s.machine);
             s.reconfigure({1, 3}, {1, 3});
             s.apply(s.next(OpCode::reconfig, Bytes(1, '\3')));
             s.tell_config(true);
             s.checker.whole_state(1, s.machine);
         }},
        {"P1", "an answer with another stat",
         [](Script& s) {
             s.open();
             const std::size_t number = s.create("/a", {}, false);
             Told told = s.told_of_last();
             told.stat.version = 1;
             s.tell(number, told);
         }},
        {"P1", "a set that is told to be a create",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t number =
                 s.do_parts(Call::part, {coord::Op::create_or_set("/a", "z")});
             Told told = s.told_of_part();
             told.is_new = true;
             s.tell(number, told);
         }},
        {"P1", "a guard among the parts of an answer",
         [](Script& s) {
             using coord::Op;
             s.open(), s.create("/a");
             const std::size_t number = s.do_parts(
                 Call::multi, {Op::guard("/a", s.czxid_of("/a")), Op::create("/b", "x")});
             Told told;
             told.parts = {{Errc::ok, {}, {}}, {Errc::ok, "/b", s.told_of_part().stat}};
             s.tell(number, told);
         }},
        {"P1", "an answer with another error",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t number = s.create("/a", {}, false);
             s.tell(number, s.told_of_last());
         }},
        {"P2", "an answer to a write that is not in the log",
         [](Script& s) {
             s.open();
             Told told;
             told.path = "/a";
             s.tell(s.ask(Call::create, "/a", "x"), told);
         }},
        {"P2", "a replica that ends before the end",
         [](Script& s) {
             s.open(), s.create("/a");
             s.checker.caught_up(2, Zxid{1, s.last.counter() - 1});
         }},
        {"P3", "an entry that nobody asked for",
         [](Script& s) {
             s.open();
             const Bytes body = s.body_of_create("/a", "x", {});
             s.apply(s.next(OpCode::create, body, s.session, 1));
         }},
        {"P3", "an entry with other data than was asked for",
         [](Script& s) {
             s.open(), s.ask(Call::create, "/a", "x");
             const Bytes body = s.body_of_create("/a", "y", {});
             s.apply(s.next(OpCode::create, body, s.session, 1));
         }},
        {"P23", "a write that is done although its guard has gone",
         [](Script& s) {
             using coord::Op;
             s.open(), s.ask_parts(Call::part, {Op::guard("/a", s.last), Op::create("/b", "x")});
             s.believe(s.next(OpCode::multi, s.bodies.back(), s.session, 1), Errc::ok);
         }},
        {"P23", "a write under another node of the guard's name",
         [](Script& s) {
             using coord::Op;
             s.open(), s.create("/a");
             s.ask_parts(Call::part, {Op::guard("/a", Zxid{1}), Op::create("/b", "x")});
             s.believe(s.next(OpCode::multi, s.bodies.back(), s.session, 2), Errc::ok);
         }},
        {"P23", "a write under a token lower than one before",
         [](Script& s) {
             using coord::Op;
             s.open(), s.create("/locks"), s.create("/locks/x");
             for (const char* const path : {"/locks/x/1", "/locks/x/2"}) s.create(path);
             for (const char* const path : {"/locks/x/2", "/locks/x/1"}) {
                 s.do_parts(Call::part,
                            {Op::guard(path, s.czxid_of(path)), Op::set("/locks", "x")});
             }
         }},
        {"P12", "two leaders of one epoch",
         [](Script& s) {
             s.checker.established(1, 1, 3, {});
             s.checker.established(2, 1, 3, {});
         }},
        {"P12", "one leader twice in one epoch, after a restart",
         [](Script& s) {
             s.checker.established(1, 1, 3, {});
             s.checker.established(1, 2, 3, {});
         }},
        {"P12", "a leader without what is committed",
         [](Script& s) {
             s.open(), s.create("/a");
             s.checker.established(2, 1, 2, Zxid{1, 1});
         }},
        {"P12", "an epoch that falls",
         [](Script& s) {
             s.checker.epochs(1, 3, 2);
             s.checker.epochs(1, 3, 1);
         }},
        {"P12", "a promise that is forgotten",
         [](Script& s) {
             s.checker.epochs(1, 3, 2);
             s.checker.epochs(1, 2, 2);
         }},
        {"P28", "what an observer has is not committed",
         [](Script& s) {
             s.checker.committed(Zxid{1, 4});
             s.checker.observes(4, coord::Role::observing, Zxid{1, 4});
             s.checker.observes(4, coord::Role::observing, Zxid{1, 5});
         }},
        {"P28", "an observer follows as a voter does",
         [](Script& s) { s.checker.observes(4, coord::Role::following, Zxid{}); }},
        {"P29", "a change of the members ends that has not begun",
         [](Script& s) { s.apply(s.next(OpCode::reconfig, Bytes(1, '\3'))); }},
        {"P29", "other members than were asked for",
         [](Script& s) { s.reconfigure({1, 2}, {1, 3}); }},
        {"P29", "a change by who may not", [](Script& s) { s.reconfigure({1, 2}, {1, 2}, false); }},
        {"P29", "a change is told before it has ended",
         [](Script& s) { s.reconfigure({1, 2}, {1, 2}), s.tell_config(false); }},
        {"P13", "another entry at the same zxid",
         [](Script& s) {
             s.open(), s.create("/a");
             const Bytes body = s.body_of_create("/b", "x", {});
             Txn txn = s.next(OpCode::create, body, s.session, 1);
             txn.zxid = s.last;
             s.checker.applied(2, txn, nullptr, s.machine.digest(), s.now);
         }},
        {"P13", "another digest at the same zxid",
         [](Script& s) {
             Bytes body;
             coord::Writer out(body);
             out.u64(9), out.u32(1000), out.u64(3), out.u64(4);
             const Txn txn = s.next(OpCode::open_session, body);
             s.apply(txn);
             s.checker.applied(2, txn, nullptr, s.machine.digest() + 1, s.now);
         }},
        {"P13", "a hole in what a replica applies",
         [](Script& s) {
             s.open();
             Bytes body;
             coord::Writer out(body);
             out.u64(9), out.u32(1000), out.u64(3), out.u64(4);
             Txn txn = s.next(OpCode::open_session, body);
             txn.zxid = Zxid{1, 5}, txn.previous = Zxid{1, 4};
             s.apply(txn);
         }},
        {"P13", "an entry applied twice",
         [](Script& s) {
             Bytes body;
             coord::Writer out(body);
             out.u64(9), out.u32(1000), out.u64(3), out.u64(4);
             const Txn txn = s.next(OpCode::open_session, body);
             s.apply(txn);
             s.checker.applied(1, txn, nullptr, s.machine.digest(), s.now);
         }},
        {"P14", "another state after a restart",
         [](Script& s) {
             s.open(), s.create("/a");
             s.checker.restarted(1);
             s.checker.state(1, s.last, s.machine.digest() + 1);
         }},
        {"P14", "a state from nowhere after a restart",
         [](Script& s) {
             s.open(), s.checker.restarted(1);
             s.checker.state(1, Zxid{1, 99}, 7);
         }},
        {"P15", "a request executed twice",
         [](Script& s) {
             s.open(), s.create("/a");
             const Bytes body = s.body_of_create("/a", "x", {});
             const Txn txn = s.next(OpCode::create, body, s.session, 1);
             coord::Outcome outcome;
             outcome.zxid = txn.zxid, outcome.op = txn.op, outcome.session = s.session;
             s.checker.applied(1, txn, &outcome, 1, s.now);
         }},
        {"P15", "a request not executed",
         [](Script& s) {
             s.open(), s.ask(Call::create, "/a", "x");
             const Bytes body = s.body_of_create("/a", "x", {});
             s.checker.applied(1, s.next(OpCode::create, body, s.session, 1), nullptr, 1, s.now);
         }},
        {"P15", "a session that was local opened once more",
         [](Script& s) {
             s.open_local(), s.ask(Call::create, "/a", "x");
             s.upgrade();
             s.apply(s.next(OpCode::close_session, BytesView("\1", 1), s.session));
             s.upgrade();
         }},
        {"P15", "a local session that does not write, opened for all",
         [](Script& s) {
             s.open_local(), s.ask(Call::get, "/a");
             s.upgrade();
         }},
        {"P2", "a write throttled that nobody had throttled as it was asked for",
         [](Script& s) {
             s.open();
             const std::size_t number = s.ask(Call::create, "/a", "x");
             Told told;
             told.error = Errc::throttled_op;
             s.tell(number, told);
         }},
        {"P2", "a write throttled, and told that it is done",
         [](Script& s) {
             s.open();
             const std::size_t number = s.ask(Call::create, "/a", "x");
             s.checker.throttled(s.session, number);
             s.tell(number, {});
         }},
        {"P2", "a removal throttled",
         [](Script& s) {
             s.open();
             s.checker.throttled(s.session, s.ask(Call::remove, "/a", ""));
         }},
        {"P2", "a write of a local session refused, and its session was not",
         [](Script& s) {
             s.open_local();
             const std::size_t number = s.ask(Call::create, "/a", "x");
             Told told;
             told.error = Errc::too_many;
             s.tell(number, told);
         }},
        {"P10", "a local session that has expired",
         [](Script& s) {
             s.open_local();
             s.checker.expired(s.session);
         }},
    };
    return flaws;
}

inline const std::vector<Flaw>& flaws_of_clients() {
    static const std::vector<Flaw> flaws = {
        {"P1", "a write that begins when a later zxid has been observed",
         [](Script& s) { s.open(), s.ask_after_the_fact(); }},
        {"P4", "a read of what never was",
         [](Script& s) {
             s.open(), s.create("/a");
             Told told = s.state_of("/a");
             told.data = "never";
             s.tell(s.ask(Call::get, "/a"), told);
         }},
        {"P4", "a read that goes back",
         [](Script& s) {
             s.open(), s.create("/a");
             const Told old = s.state_of("/a");
             s.create("/b"), s.get("/b");
             s.tell(s.ask(Call::get, "/a"), old);
         }},
        {"P4", "a read that does not see the session's own write",
         [](Script& s) {
             s.open(), s.create("/a");
             Told told;
             told.error = Errc::no_node;
             s.tell(s.ask(Call::exists, "/a"), told);
         }},
        {"P4", "a list with a child too many",
         [](Script& s) {
             s.open(), s.create("/a");
             Told told = s.state_of("/a");
             told.names = {"ghost"};
             s.tell(s.ask(Call::children, "/a"), told);
         }},
        {"P4", "a read of two moments",
         [](Script& s) {
             s.open(), s.create("/a");
             Told told = s.read_of({"/a", "/b"});
             s.create("/b");
             told.found[1] = s.read_of({"/b"}).found[0];
             s.tell(s.ask_read({"/a", "/b"}), told);
         }},
        {"P4", "a read of two states that says it is of one",
         [](Script& s) {
             s.open(), s.create("/a");
             const Told old = s.read_of({"/a", "/b"});
             s.create("/b");
             Told told = s.read_of({"/a", "/b"});
             told.found[1] = old.found[1], told.found[1].zxid = told.zxid;
             s.tell(s.ask_read({"/a", "/b"}), told);
         }},
        {"P6", "a read that is older than the state that it demands",
         [](Script& s) {
             s.open(), s.create("/a");
             const Told old = s.read_of({"/a"});
             const SessionId one = s.session;
             s.open(), s.create("/b");
             s.session = one;
             s.tell(s.ask_read({"/a"}, s.last), old);
         }},
        {"P6", "a read of the newest that is older than its call",
         [](Script& s) {
             s.open(), s.create("/a");
             const Told old = s.read_of({"/a"});
             const SessionId one = s.session;
             s.open(), s.create("/b");
             s.session = one;
             s.tell(s.ask_read({"/a"}, coord::newest), old);
         }},
        {"P5", "answers out of turn",
         [](Script& s) {
             s.open(), s.create("/a");
             s.ask(Call::get, "/a");
             s.tell(s.ask(Call::get, "/a"), s.state_of("/a"));
         }},
        {"P5", "writes out of turn in the log",
         [](Script& s) {
             s.open();
             const std::size_t first = s.create("/a", {}, false);
             const Told told_a = s.told_of_last();
             const std::size_t second = s.create("/b", {}, false);
             s.tell(second, s.told_of_last());
             s.tell(first, told_a);
         }},
        {"P6", "a sync that ends before its call",
         [](Script& s) {
             s.open(), s.create("/a"), s.create("/b");
             s.checker.answered(s.session, s.ask(Call::sync, ""), {}, Zxid{1, 1});
         }},
        {"P6", "a read after a sync that is older than it",
         [](Script& s) {
             s.open(), s.create("/a");
             const Told old = s.state_of("/a");
             const SessionId one = s.session;
             s.open(), s.create("/b");
             s.session = one;
             s.tell(s.ask(Call::sync, ""), {});
             s.tell(s.ask(Call::get, "/a"), old);
         }},
        {"P7", "data before its event",
         [](Script& s) {
             s.open(), s.create("/a"), s.get("/a", true);
             s.set("/a", false);
             s.get("/a");
         }},
        {"P7", "an event that does not come at all",
         [](Script& s) {
             s.open(), s.create("/a");
             s.tell(s.ask(Call::children, "/a", "", 0, true), s.state_of("/a"));
             const SessionId one = s.session;
             s.open(), s.create("/a/b");
             s.checker.settled(one, s.last);
         }},
        {"P7", "an event after an answer that shows the change",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t watch = s.get("/a", true);
             const SessionId one = s.session;
             s.open(), s.create("/b"), s.set("/a");
             s.session = one;
             s.get("/b");
             s.checker.event(one, watch, EventType::data_changed, "/a", s.last);
         }},
        {"P8", "an event of another type",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t watch = s.get("/a", true);
             const SessionId one = s.session;
             s.open(), s.set("/a");
             s.checker.event(one, watch, EventType::deleted, "/a", s.last);
         }},
        {"P8", "an event twice",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t watch = s.get("/a", true);
             const SessionId one = s.session;
             s.open(), s.set("/a");
             s.checker.event(one, watch, EventType::data_changed, "/a", s.last);
             s.checker.event(one, watch, EventType::data_changed, "/a", s.last);
         }},
        {"P7", "an answer that shows a change of which a watcher that stays was not told",
         [](Script& s) {
             s.open(), s.create("/a");
             s.stay("/a");
             const SessionId one = s.session;
             s.open(), s.set("/a"), s.set("/a");
             s.session = one;
             s.get("/a");
         }},
        {"P8", "an event that a watcher that stays hears out of turn",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t watch = s.stay("/");
             const SessionId one = s.session;
             s.open(), s.set("/a");
             s.set("/a");
             s.checker.event(one, watch, EventType::data_changed, "/a", s.last);
         }},
        {"P8", "an event of the children below a watcher of all that is below it",
         [](Script& s) {
             s.open();
             const std::size_t watch = s.stay("/");
             const SessionId one = s.session;
             s.open(), s.create("/a");
             s.checker.event(one, watch, EventType::children_changed, "/", s.last);
         }},
        {"P8", "a watcher that is removed by nobody",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t watch = s.stay("/a");
             s.checker.event(s.session, watch, EventType::persistent_watch_removed, "/a", s.last);
         }},
        {"P8", "a watcher that is left by its removal",
         [](Script& s) {
             s.open(), s.create("/a"), s.stay("/a");
             s.tell(s.ask(Call::remove_watches, "/a"), {});
         }},
        {"P8", "an event without a change",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t watch = s.get("/a", true);
             s.checker.event(s.session, watch, EventType::data_changed, "/a", Zxid{1, 9});
         }},
        {"P9", "an ephemeral node that outlives its session",
         [](Script& s) {
             s.open(), s.create("/e", coord::CreateMode::ephemeral);
             const Told node = s.state_of("/e");
             s.now = s.now + coord::seconds(9), s.expire(s.session);
             s.checker.node_now(1, "/e", node.stat, node.data);
         }},
        {"P9", "a session that is open here and gone there",
         [](Script& s) {
             s.open();
             s.now = s.now + coord::seconds(9), s.expire(s.session);
             s.checker.session_now(1, s.session, true, 0);
         }},
        {"P9", "a session that has moved, and nobody else holds it",
         [](Script& s) { s.open(), s.checker.moved(s.session); }},
        {"P3", "an attach that nobody asked for",
         [](Script& s) {
             s.open();
             Bytes body;
             coord::Writer out(body);
             out.u64(9);
             const std::uint64_t next_holder = std::uint64_t{1} << coord::cxid_bits;
             s.apply(s.next(OpCode::attach_session, body, s.session, next_holder));
         }},
        {"P3", "an entry at another path than was asked for",
         [](Script& s) {
             s.open(), s.ask(Call::create, "/a", "x");
             s.apply(s.next(OpCode::create, s.body_of_create("/b", "x", {}), s.session, 1));
         }},
        {"P5", "a write that is answered before a read that was asked for before it",
         [](Script& s) {
             s.open(), s.create("/a"), s.ask(Call::get, "/a");
             s.tell(s.create("/b", {}, false), s.told_of_last());
         }},
        {"P14", "a replica that starts with more than the log has",
         [](Script& s) {
             s.open(), s.create("/a"), s.checker.restarted(2);
             s.checker.state(2, Zxid{2, 1}, s.machine.digest());
         }},
        {"P14", "a snapshot that comes with the state of an older zxid",
         [](Script& s) {
             s.open();
             const std::uint64_t before = s.machine.digest();
             s.create("/a"), s.checker.installed(2, s.last, before);
         }},
        {"P16", "a write without an answer, though it is in the log",
         [](Script& s) {
             s.open(), s.create("/a", {}, false);
             s.checker.settled(s.session, s.last);
         }},
        {"P24", "an event of a node that went out of sight later",
         [](Script& s) {
             s.hide(), s.add_auth("me");
             const std::size_t number = s.ask(Call::get, "/a", {}, 0, true);
             s.tell(number, s.state_of("/a"));
             s.session = std::exchange(s.owner, s.session), std::swap(s.cxid, s.owner_cxid);
             s.set_acl("/a", coord::Acl(coord::permission::all, "token", "other"));
             s.add_auth("other");
             s.session = std::exchange(s.owner, s.session), std::swap(s.cxid, s.owner_cxid);
             s.set_by_owner("/a");
             s.checker.event(s.session, number, EventType::data_changed, "/a", s.last);
         }},
        {"P28", "an observer leads",
         [](Script& s) { s.checker.observes(4, coord::Role::leading, Zxid{}); }},
        {"P9", "a session that is gone here and open there",
         [](Script& s) { s.open(), s.checker.session_now(1, s.session, false, 0); }},
        {"P10", "an expiry before the timeout",
         [](Script& s) {
             s.open(), s.now = s.now + coord::milliseconds(500);
             s.expire(s.session);
         }},
        {"P10", "an expiry of a session that certainly lives",
         [](Script& s) {
             s.open(), s.now = s.now + coord::seconds(5);
             s.checker.alive_until(s.session, s.now + coord::milliseconds(1));
             s.expire(s.session);
         }},
        {"P10", "a certain life after the expiry",
         [](Script& s) {
             s.open(), s.now = s.now + coord::seconds(5);
             s.expire(s.session);
             s.checker.alive_until(s.session, s.now + coord::milliseconds(1));
         }},
        {"P10", "an expiry told of an open session",
         [](Script& s) { s.open(), s.checker.expired(s.session); }},
        {"P10", "an expiry while all is well",
         [](Script& s) {
             s.open(), s.checker.forbid_expiry(true);
             s.now = s.now + coord::seconds(5), s.expire(s.session);
         }},
        {"P11", "a token that falls",
         [](Script& s) {
             s.checker.granted("/l", 1, 9, s.now);
             s.checker.let_go("/l", 1);
             s.checker.granted("/l", 2, 8, s.now);
         }},
        {"P11", "a grant while the holder is certain",
         [](Script& s) {
             s.checker.granted("/l", 1, 8, s.now);
             s.checker.held_until("/l", 1, s.now + coord::milliseconds(2), s.now);
             s.checker.granted("/l", 2, 9, s.now + coord::milliseconds(1));
         }},
        {"P11", "a former holder that is certain",
         [](Script& s) {
             s.checker.granted("/l", 1, 8, s.now);
             s.checker.granted("/l", 2, 9, s.now);
             s.checker.held_until("/l", 1, s.now + coord::milliseconds(1), s.now);
         }},
        {"P11", "a reader beside a writer",
         [](Script& s) {
             s.checker.granted("/l", 1, 8, s.now);
             s.checker.held_until("/l", 1, s.now + coord::milliseconds(2), s.now);
             s.checker.granted("/l", 2, 9, s.now, false);
         }},
        {"P11", "a writer beside the second of two readers",
         [](Script& s) {
             s.checker.granted("/l", 1, 8, s.now, false);
             s.checker.granted("/l", 2, 9, s.now, false);
             s.checker.held_until("/l", 2, s.now + coord::milliseconds(2), s.now);
             s.checker.granted("/l", 3, 10, s.now);
         }},
        {"P11", "a writer beside one that is a reader now",
         [](Script& s) {
             s.checker.granted("/l", 1, 8, s.now);
             s.checker.held_until("/l", 1, s.now + coord::milliseconds(2), s.now);
             s.checker.will_read("/l", 1), s.checker.downgraded("/l", 8, 8);
             s.checker.granted("/l", 2, 9, s.now, false);
             s.checker.granted("/l", 3, 10, s.now);
         }},
        {"P11", "a reader's token from before a writer's",
         [](Script& s) {
             s.checker.granted("/l", 1, 9, s.now);
             s.checker.let_go("/l", 1);
             s.checker.granted("/l", 2, 8, s.now, false);
         }},
        {"P11", "another token after a downgrade",
         [](Script& s) {
             s.checker.granted("/l", 1, 8, s.now);
             s.checker.will_read("/l", 1), s.checker.downgraded("/l", 8, 9);
         }},
        {"P27", "a write that was executed, and is told that its session is over",
         [](Script& s) {
             s.open();
             const std::size_t number = s.create("/a", {}, false);
             s.end_and_tell(number, Errc::session_expired);
         }},
        {"P27", "a write in doubt at a replica that has applied its session's end",
         [](Script& s) {
             s.open();
             const std::size_t number = s.ask(Call::create, "/a", "x");
             s.end_and_tell(number, Errc::outcome_unknown);
         }},
        {"P27", "a write in doubt at a replica that has jumped, and not over its session's end",
         [](Script& s) {
             s.open(), s.checker.installed(1, s.last, s.machine.digest());
             const std::size_t number = s.create("/a", {}, false);
             s.end_and_tell(number, Errc::outcome_unknown);
         }},
        {"P27", "a read in doubt",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t number = s.ask(Call::get, "/a");
             s.end_and_tell(number, Errc::outcome_unknown, true);
         }},
        {"P15", "an answer twice",
         [](Script& s) {
             s.open(), s.create("/a");
             s.tell(s.get("/a"), s.state_of("/a"));
         }},
        {"P15", "an answer after the end",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t number = s.ask(Call::get, "/a");
             s.checker.dropped(s.session);
             s.tell(number, s.state_of("/a"));
         }},
        {"P4", "no bytes that are read as null",
         [](Script& s) {
             s.open(), s.create("/a");
             Told told = s.state_of("/a");
             told.is_null = true;
             s.tell(s.ask(Call::get, "/a"), told);
         }},
        {"P1", "a node that is null here and has no bytes there",
         [](Script& s) {
             const Told node = s.state_of("/");
             s.checker.node_now(1, "/", node.stat, coord::null_data);
         }},
        {"P22", "a reap of a node that does not go by itself",
         [](Script& s) { s.open(), s.create("/a"), s.believe(s.reap("/a"), Errc::bad_version); }},
        {"P22", "a reap that a session has asked for",
         [](Script& s) {
             s.open(), s.create_with_ttl("/t");
             Txn txn = s.reap("/t");
             txn.session = SessionId{77};
             s.believe(txn, Errc::ok);
         }},
        {"P1", "a reap that takes a node with a child",
         [](Script& s) {
             s.open(), s.create_with_ttl("/t"), s.create("/t/x");
             s.believe(s.reap("/t"), Errc::ok);
         }},
        {"P1", "a reap before the time",
         [](Script& s) {
             s.open(), s.create_with_ttl("/t");
             s.believe(s.reap("/t", 10), Errc::ok);
         }},
        {"P1", "a reap of another node at that path",
         [](Script& s) {
             s.open(), s.create_with_ttl("/t");
             const Txn early = s.reap("/t");
             s.apply(early), s.create_with_ttl("/t");
             Txn txn = s.reap("/t");
             txn.body = early.body;
             s.believe(txn, Errc::ok);
         }},
        {"P22", "a node that is due and stays",
         [](Script& s) { s.open(), s.create_with_ttl("/t"), s.checker.all_reaped(16); }},
        {"P22", "a ttl that is another one here",
         [](Script& s) {
             s.open(), s.create_with_ttl("/t");
             coord::NodeLife life = *s.machine.tree().life("/t");
             life.ttl_ms += 1;
             s.checker.life_now(1, "/t", life);
         }},
        {nullptr, "who may not read is told so, and hears nothing",
         [](Script& s) {
             s.hide();
             s.tell(s.ask(Call::get, "/a"), s.refused());
             const std::size_t number = s.ask(Call::exists, "/a", {}, 0, true);
             s.tell(number, s.state_of("/a"));
             s.stay("/");
             s.set_by_owner("/a");
             s.checker.settled(s.session, s.last);
             s.checker.whole_state(1, s.machine);
         }},
        {"P4", "a read of what may not be read",
         [](Script& s) { s.hide(), s.get("/a"); }},
        {"P4", "a read that is refused and must not be",
         [](Script& s) {
             s.hide(), s.add_auth("me");
             s.tell(s.ask(Call::get, "/a"), s.refused());
         }},
        {"P4", "an ACL that shows a digest to who may only read",
         [](Script& s) {
             s.open(), s.create("/a"), s.add_auth("me");
             const coord::Acl acl = coord::read_only_acl().add(31, "digest", "u:p");
             s.set_acl("/a", acl);
             Told told = s.state_of("/a");
             told.acl = acl.bytes();
             s.tell(s.ask(Call::get_acl, "/a"), told);
         }},
        {"P24", "an event of a node that may not be read",
         [](Script& s) {
             s.hide();
             const std::size_t number = s.ask(Call::exists, "/a", {}, 0, true);
             s.tell(number, s.state_of("/a"));
             s.set_by_owner("/a");
             s.checker.event(s.session, number, EventType::data_changed, "/a", s.last);
         }},
        {"P8", "an event of such a node, to a watcher that stays",
         [](Script& s) {
             s.hide();
             const std::size_t number = s.stay("/a");
             s.set_by_owner("/a");
             s.checker.event(s.session, number, EventType::data_changed, "/a", s.last);
         }},
        {"P7", "an event that is kept from who may read",
         [](Script& s) {
             s.hide(), s.add_auth("me");
             const std::size_t number = s.ask(Call::exists, "/a", {}, 0, true);
             s.tell(number, s.state_of("/a"));
             s.set_by_owner("/a");
             s.checker.settled(s.session, s.last);
         }},
        {"P24", "a replica with another ACL, and with other identities",
         [](Script& s) {
             s.open(), s.create("/a");
             const Bytes identity = coord::Acl(0, "token", "me").bytes();
             (void)s.ask(Call::add_auth, {}, identity);
             const Txn txn = s.next(OpCode::auth, identity, s.session, s.cxid + 1);
             coord::Outcome outcome;
             outcome.zxid = txn.zxid, outcome.op = txn.op, outcome.session = s.session;
             s.checker.applied(1, txn, &outcome, s.machine.digest(), s.now);
             struct Nobody final : coord::ChangeSink {
                 void on_created(BytesView, Zxid, BytesView) override {}
                 void on_deleted(BytesView, Zxid, BytesView) override {}
                 void on_data_changed(BytesView, Zxid, BytesView) override {}
                 void on_children_changed(BytesView, Zxid, BytesView) override {}
             } nobody;
             const Bytes other = coord::Acl(0, "token", "you").bytes();
             Txn wrong = txn;
             wrong.body = other;
             (void)s.machine.apply(wrong, nobody);
             s.checker.whole_state(1, s.machine);
         }},
        {nullptr, "a stream, whole: what is beside it is not told",
         [](Script& s) {
             s.open(), s.create("/a"), s.stream("/a", s.last);
             s.create("/b"), s.create("/a/x");
             s.checker.streamed(1, s.change(2));
             s.checker.streamed_all(1, s.last, s.last);
             s.checker.streams(1, "/a", s.last, 2, false);
             s.checker.begun(2, s.last);
             s.checker.stream_is_cut(1, Zxid(s.last.value - 1), false);
         }},
        {"P25", "a change that a stream leaves out",
         [](Script& s) { s.stream_of_two(), s.checker.streamed(1, s.change(1)); }},
        {"P25", "a change that a stream has twice",
         [](Script& s) {
             s.stream_of_two();
             s.checker.streamed(1, s.change(0)), s.checker.streamed(1, s.change(0));
         }},
        {"P25", "a change that is told before it is in the log",
         [](Script& s) {
             s.stream_of_two();
             for (std::size_t i : {0u, 1u, 1u}) s.checker.streamed(1, s.change(i));
         }},
        {"P25", "a change of another path",
         [](Script& s) {
             s.open(), s.stream("/a", s.last), s.create("/b"), s.create("/a");
             s.checker.streamed(1, s.change(0));
         }},
        {"P25", "a change with other data",
         [](Script& s) {
             s.stream_of_two();
             coord::Change change = s.change(0);
             change.bytes = "y";
             s.checker.streamed(1, change);
         }},
        {"P25", "a change that is not said to be its transaction's last",
         [](Script& s) {
             s.stream_of_two();
             coord::Change change = s.change(0);
             change.is_last = false;
             s.checker.streamed(1, change);
         }},
        {"P25", "a change with the position of the next one",
         [](Script& s) {
             s.stream_of_two();
             coord::Change change = s.change(0);
             change.position = coord::ChangePosition(change.position.zxid, 0);
             s.checker.streamed(1, change);
         }},
        {"P25", "a stream that says that there is no more, where there is",
         [](Script& s) {
             s.stream_of_two(), s.checker.streamed(1, s.change(0));
             s.checker.streamed_all(1, s.last, s.last);
         }},
        {"P25", "a stream that goes on before what it had",
         [](Script& s) {
             s.open();
             const Zxid from = s.last;
             s.stream("/", from), s.create("/a"), s.checker.streamed(1, s.change(0));
             s.checker.streams(1, "/", from, 2, false);
         }},
        {"P25", "a stream that is cut at a replica that has had all since",
         [](Script& s) {
             s.stream_of_two();
             s.checker.stream_is_cut(1, Zxid(s.last.value - 1), false);
         }},
        {"P25", "a position that stays behind what has been looked through",
         [](Script& s) {
             s.open(), s.stream("/b", s.last);
             const Zxid from = s.last;
             s.create("/a");
             s.checker.streamed_all(1, s.last, from);
         }},
        {nullptr, "a watcher as of a zxid: told at once, and of what is still to come",
         [](Script& s) {
             s.open(), s.create("/a");
             const Zxid since = s.last;
             s.create("/a/x");
             const std::size_t child = s.since("/a", coord::Watched::children, since);
             s.checker.event(s.session, child, EventType::children_changed, "/a", s.last);
             s.tell(child, {});
             const std::size_t data = s.since("/a/x", coord::Watched::data, s.last);
             s.tell(data, {});
         }},
        {"P8", "a watcher as of a zxid that is not told what has changed",
         [](Script& s) {
             s.open(), s.create("/a");
             const Zxid since = s.last;
             s.create("/a/x");
             s.tell(s.since("/a", coord::Watched::children, since), {});
         }},
        {"P8", "a watcher as of a zxid that is told what was before that",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t data = s.since("/a", coord::Watched::data, s.last);
             s.checker.event(s.session, data, EventType::data_changed, "/a", s.last);
         }},
        {"P8", "a watcher as of a zxid that hears of a node that is there that it is gone",
         [](Script& s) {
             s.open(), s.create("/a");
             const std::size_t data = s.since("/a", coord::Watched::data, Zxid{1, 1});
             s.checker.event(s.session, data, EventType::deleted, "/a", s.last);
         }},
        {"P16", "a request without an answer",
         [](Script& s) {
             s.open(), s.create("/a");
             s.ask(Call::get, "/a");
             s.checker.settled(s.session, s.last);
         }},
        {"P16", "a sync without an answer",
         [](Script& s) {
             s.open(), s.ask(Call::sync, "");
             s.checker.settled(s.session, s.last);
         }},
    };
    return flaws;
}

inline bool finds(const Flaw& flaw) {
    Script script;
    flaw.play(script);
    const std::vector<Bytes>& found = script.checker.violations();
    bool right = flaw.property == nullptr ? found.empty() : false;
    for (const Bytes& each : found) {
        right =
            right || (flaw.property != nullptr && each.rfind(Bytes(flaw.property) + ":", 0) == 0);
    }
    std::printf("%s  %-4s %s\n", right ? "ok    " : "MISSED",
                flaw.property == nullptr ? "-" : flaw.property, flaw.name);
    for (const Bytes& each : found) {
        if (!right) std::printf("        found: %s\n", each.c_str());
    }
    return right;
}

// A checker that was not shown three histories with a flaw of its own is not known to find any.
inline std::size_t shown_too_few() {
    std::map<Bytes, std::size_t> shown;
    for (const char* const property :
         {"P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "P14",
          "P15", "P16", "P22", "P23", "P24", "P25", "P27", "P28", "P29"}) {
        shown[property] = 0;
    }
    for (const auto* flaws : {&flaws_of_the_log(), &flaws_of_clients()}) {
        for (const Flaw& flaw : *flaws) {
            if (flaw.property != nullptr) shown[flaw.property] += 1;
        }
    }
    std::size_t count = 0;
    for (const auto& [property, flaws] : shown) {
        if (flaws >= 3) continue;
        count += 1;
        std::printf("only %zu flawed histories are of %s\n", flaws, property.c_str());
    }
    return count;
}

inline int self_test() {
    std::size_t missed = shown_too_few();
    for (const Flaw& flaw : flaws_of_the_log()) missed += finds(flaw) ? 0u : 1u;
    for (const Flaw& flaw : flaws_of_clients()) missed += finds(flaw) ? 0u : 1u;
    std::printf("%zu flaws of %zu missed\n", missed,
                flaws_of_the_log().size() + flaws_of_clients().size() - 1);
    return missed == 0 ? 0 : 1;
}

}  // namespace sim
