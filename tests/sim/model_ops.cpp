// The machine beside the plain model of checkers.hpp, over random transactions: every answer, every
// part of a multi, every Stat and every event, in order; and now and then the whole state, a save
// in slices meanwhile, and a machine that goes on from what was saved. No network and no sessions'
// queues: a million transactions take seconds.
//
//   sim_model_ops [--seed=N] [--runs=N]
//
// ctest: --runs=1000000

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "checkers.hpp"

namespace {

using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::EventType;
using coord::Machine;
using coord::OpCode;
using coord::SessionId;
using coord::Txn;
using coord::Writer;
using coord::Zxid;
using sim::Model;

constexpr std::uint64_t round_length = 20000;  // the model keeps all that ever was

// The events of a transaction, as the machine tells of them.
struct Heard final : coord::ChangeSink {
    std::vector<Model::PathChange> all;
    void add(EventType type, BytesView path, Zxid zxid, BytesView acl) {
        all.push_back({zxid, type, Bytes(path), Bytes(acl)});
    }
    void on_created(BytesView p, Zxid z, BytesView a) override {
        add(EventType::created, p, z, a);
    }
    void on_deleted(BytesView p, Zxid z, BytesView a) override {
        add(EventType::deleted, p, z, a);
    }
    void on_data_changed(BytesView p, Zxid z, BytesView a) override {
        add(EventType::data_changed, p, z, a);
    }
    void on_children_changed(BytesView p, Zxid z, BytesView a) override {
        add(EventType::children_changed, p, z, a);
    }
};

// So that a run which compares next to nothing is seen.
struct Tally {
    std::uint64_t good = 0;     // writes that took effect
    std::uint64_t failed = 0;   // with an error of their own
    std::uint64_t expired = 0;  // of sessions that have ended
    std::uint64_t voids = 0;
    std::uint64_t multis = 0;   // good ones
    std::uint64_t removed = 0;  // remove_alls in these
    std::uint64_t taken = 0;    // take_overs
    std::uint64_t guarded = 0;  // guards
    std::uint64_t full = 0;     // quota_exceeded
    std::uint64_t large = 0;    // quotas on too much
    std::uint64_t counted = 0;  // quotas that there were at looks at the whole state
    std::uint64_t events = 0;
    std::uint64_t saves = 0;
    std::uint64_t admits = 0;
};

struct Round {
    explicit Round(std::uint64_t seed)
        : rng(seed), admits(coord::mix64(seed, 1)), machine(new Machine(limits(), seed)),
          model(new Model) {
        model->removals_max = limits().removals_max;
        model->list_max = limits().list_max;
    }
    static coord::Limits limits() {
        coord::Limits limits;
        limits.removals_max = 6;
        limits.list_max = 8;
        return limits;
    }

    coord::Rng rng;
    coord::Rng admits;  // draws of its own
    std::unique_ptr<Machine> machine;
    std::unique_ptr<Model> model;
    Heard heard;
    std::uint64_t counter = 0;
    std::vector<std::pair<SessionId, std::uint64_t>> sessions;  // and the cxid of each
    std::vector<SessionId> known;  // some of all that there were
    Bytes saved;
    std::uint64_t digest_at_save = 0;
    Tally tally;

    bool differs(const char* what, BytesView more = {}) const {
        std::printf("transaction %llu: %s %s\n", static_cast<unsigned long long>(counter), what,
                    Bytes(more).c_str());
        return false;
    }

    // Few paths, so that most of them are there at times.
    Bytes random_path() {
        Bytes path;
        for (std::uint64_t names = 1 + rng.below(3); names > 0; names--) {
            path.push_back('/');
            path.push_back(static_cast<char>('a' + rng.below(4)));
            if (rng.chance(30)) path.push_back('-');
        }
        return path;
    }

    coord::Acl random_acl() {
        const Bytes id(1, static_cast<char>('a' + rng.below(3)));
        const auto some = static_cast<std::uint32_t>(rng.below(32));
        switch (rng.below(8)) {
            case 0: return coord::creator_acl();
            case 1: return coord::Acl(some, "token", id).add(some, "token", id);
            case 2: return coord::read_only_acl().add(some, "auth", "").add(31, "token", id);
            case 3: return coord::Acl(some, "world", "anyone").add(31, "token", id);
            case 4: return coord::Acl(31, "token", id).add(7, "auth", "x").add(7, "auth", "y");
            default: return coord::open_acl();
        }
    }
    Bytes random_set_acl() {
        Bytes body;
        Writer out(body);
        out.bytes(random_path()), out.bytes(random_acl().bytes());
        out.i32(rng.chance(800) ? coord::any_version : static_cast<std::int32_t>(rng.below(3)));
        return body;
    }
    Bytes random_identities() {
        const Bytes id(1, static_cast<char>('a' + rng.below(3)));
        const Bytes own = coord::Acl(0, "token", id).bytes();
        return rng.chance(100) ? own + Bytes(coord::super_user) : own;
    }

    // A node of a quota, and what it may hold.
    Bytes random_quota_node() {
        const Bytes path = rng.chance(20) ? "/zookeeper" : random_path();
        return sim::quota_node(path, rng.chance(600) ? "limits" : "stats");
    }
    Bytes random_quota_text() {
        const std::size_t which = static_cast<std::size_t>(rng.below(7));
        return which < 5 ? sim::quota_texts[which].text : which == 5 ? "count=" : "?";
    }
    Bytes random_quota_part(OpCode& op) {
        using coord::Op;
        const Bytes text = random_quota_text(), node = random_quota_node();
        const auto mode = rng.chance(200) ? CreateMode::ephemeral : CreateMode::persistent;
        Op part = Op::create_with_parents(node, text, mode);
        switch (rng.below(8)) {
            case 0: part = Op::set(node, rng.chance(100) ? coord::null_data : text); break;
            case 1: part = Op::set(node, text, 0); break;
            case 2: part = Op::create_or_set(node, text, mode); break;
            case 3: part = Op::remove(node); break;
            case 4: part = Op::remove_all(coord::parent_path(node)); break;
            default: break;
        }
        op = part.code;
        return sim::body_of({part}).substr(9);  // behind their number, its code and size
    }

    // Voters that come, or have another storage; at times nonsense.
    Bytes random_admit() {
        Bytes body;
        Writer out(body);
        const std::uint64_t count = admits.below(4);
        out.u32(static_cast<std::uint32_t>(count + (admits.chance(100) ? 1 : 0)));
        for (std::uint64_t i = 0; i < count; i++) {
            const std::uint64_t most = admits.chance(100) ? 300 : 9;
            out.u32(static_cast<std::uint32_t>(1 + admits.below(most))), out.u64(admits.below(3));
        }
        return body;
    }

    // Either step, in its time or not, or a refusal.
    Bytes random_reconfig() {
        if (admits.chance(500)) return Bytes(1, '\3');
        Bytes refusal(1, '\4');
        Writer(refusal).i32(static_cast<std::int32_t>(Errc::bad_version));
        if (admits.chance(100)) return refusal;
        coord::VoterTable::Members members;
        coord::VoterTable::Places storages;
        const std::uint32_t most = admits.chance(50) ? 80 : 9;
        for (std::uint32_t id = 1; id <= most; id++) {
            if (admits.chance(500)) continue;
            coord::Member member;
            member.id = coord::PeerId{id}, member.votes = admits.chance(800);
            if (admits.chance(200)) member.weight = static_cast<std::uint32_t>(admits.below(3));
            if (admits.chance(200)) member.group = static_cast<std::uint32_t>(admits.below(3));
            if (admits.chance(200)) member.address = "h" + std::to_string(admits.below(9));
            members.push_back(member);
            if (admits.chance(500)) storages.push_back({member.id, admits.below(3), false});
        }
        Bytes body;
        coord::VoterTable::write(coord::ReconfigStep::joint, members, storages, body);
        return body;
    }

    Bytes random_body(OpCode& op) {
        if (admits.chance(5)) {
            const std::int32_t version = admits.chance(500) ? coord::any_version : 1;
            const coord::Op part = coord::Op::set(sim::config_node, "x", version);
            return op = OpCode::set, sim::body_of({part}).substr(9);
        }
        if (rng.chance(40)) return op = OpCode::set_acl, random_set_acl();
        if (rng.chance(20)) {
            const Bytes text = random_quota_text(), node = random_quota_node();
            op = rng.chance(300) ? OpCode::set : OpCode::create;
            const coord::Op part = op == OpCode::set ? coord::Op::set(node, text)
                                                     : coord::Op::create(node, text);
            return sim::body_of({part}).substr(9);
        }
        Bytes body;
        Writer out(body);
        const std::uint64_t draw = rng.below(100);
        op = draw < 45 ? OpCode::create : draw < 65 ? OpCode::remove : OpCode::set;
        const auto mode = static_cast<CreateMode>(rng.below(4));
        const bool is_numbered = op == OpCode::create && coord::is_sequential(mode);
        out.bytes(is_numbered && rng.chance(300) ? random_path() + "/" : random_path());
        if (op != OpCode::remove) out.bytes(Bytes(rng.below(rng.chance(20) ? 3000 : 60), 'd'));
        const std::int32_t version =
            rng.chance(800) ? coord::any_version : static_cast<std::int32_t>(rng.below(3));
        const bool has_acl = op == OpCode::create && rng.chance(80);
        const std::int32_t with_acl = has_acl ? 1 << 16 : 0;
        out.i32(op == OpCode::create ? static_cast<std::int32_t>(mode) + with_acl : version);
        if (has_acl) out.bytes(random_acl().bytes());
        return body;
    }

    // One of those that only a multi has, mostly of what is so.
    Bytes random_special(OpCode& op) {
        using coord::Op;
        const Bytes path = random_path(), value(rng.below(20), 'd');
        const Model::Version* const now = model->at(path, model->frontier());
        const bool is_there = now != nullptr && now->present;
        const coord::Stat stat = is_there ? now->stat : coord::Stat{};
        const BytesView data = !is_there || rng.chance(200) ? BytesView(value)
                               : now->is_null               ? coord::null_data
                                                            : BytesView(now->data);
        const std::uint64_t off = rng.chance(150) ? 1 : 0;
        const auto mode = rng.chance(300) ? CreateMode::ephemeral : CreateMode::persistent;
        const auto parents = rng.chance(200) ? CreateMode::container : CreateMode::persistent;
        const SessionId earlier =
            known.empty() ? SessionId{} : known[static_cast<std::size_t>(rng.below(known.size()))];
        Op part;
        switch (rng.below(13)) {
            case 0: part = Op::absent(path); break;
            case 1: part = Op::has_czxid(path, Zxid{stat.czxid.value + off}); break;
            case 2: part = Op::has_owner(path, SessionId{stat.ephemeral_owner.value + off}); break;
            case 3: part = Op::has_data(path, data); break;
            case 4:
                part = Op::has_children(path, static_cast<std::uint64_t>(stat.num_children) + off);
                break;
            case 5: part = Op::guard(path, Zxid{stat.czxid.value + off}); break;
            case 6: part = Op::create_or_set(path, data, mode); break;
            case 7:
            case 8: part = Op::create_with_parents(path, data, mode, parents); break;
            case 9:
            case 10: part = Op::remove_all(path, rng.chance(900) ? -1 : 0); break;
            default: {
                // The opener's password, or not. A session's node more often than any.
                const auto owner = model->sessions().find(earlier);
                Bytes theirs = path;
                if (owner != model->sessions().end() && !owner->second.ephemerals.empty())
                    theirs = *owner->second.ephemerals.begin();
                const std::uint64_t number = Zxid{earlier.value}.counter();
                part = Op::take_over(theirs, data, earlier, {number + 1 + off, number + 2});
                op = part.code;
                return sim::body_of({part}).substr(9);  // behind their number, its code and size
            }
        }
        op = part.code;
        return sim::body_of({part}).substr(9);
    }

    Bytes random_multi() {
        Bytes body;
        Writer out(body);
        const std::uint64_t parts = rng.below(rng.chance(500) ? 3 : 8);
        out.u32(static_cast<std::uint32_t>(parts));
        for (std::uint64_t i = 0; i < parts; i++) {
            OpCode op{};
            Bytes part = random_body(op);
            if (rng.chance(200)) {
                part.clear(), op = OpCode::check;
                Writer check(part);
                check.bytes(random_path()), check.i32(coord::any_version);
            } else if (rng.chance(500)) {
                part = random_special(op);
            } else if (rng.chance(150)) {
                part = random_quota_part(op);
            }
            out.u8(static_cast<std::uint8_t>(op)), out.bytes(part);
        }
        return body;
    }

    // The next transaction, of a session that may have ended; at times one that is void.
    Txn next(Bytes& body) {
        Txn txn;
        counter += 1;
        txn.zxid = Zxid{1, counter};
        txn.time_ms = static_cast<std::int64_t>(1000 + counter);
        if (admits.chance(3)) {
            const bool is_admit = admits.chance(500);
            body = is_admit ? random_admit() : random_reconfig();
            txn.op = is_admit ? OpCode::admit : OpCode::reconfig, txn.body = body;
            return txn;
        }
        if (sessions.empty() || (sessions.size() < 6 && rng.chance(20))) {
            Writer(body).u64(counter), Writer(body).u32(5000);
            Writer(body).u64(counter + 1), Writer(body).u64(counter + 2);
            txn.op = OpCode::open_session;
            SessionId id{txn.zxid.value};
            if (counter % 3 == 0) {  // it was local
                id = SessionId{coord::mix64(counter, 1) | std::uint64_t{1} << 63};
                body.replace(0, 8, 8, '\0');
                for (std::size_t i = 0; i < 8; i++) {
                    body[i] = static_cast<char>(id.value >> (56 - i * 8));
                }
                body.push_back('\1');
            }
            sessions.emplace_back(id, 0);
            known.push_back(sessions.back().first);
            if (known.size() > 8) known.erase(known.begin());
        } else {
            const std::size_t which = static_cast<std::size_t>(rng.below(sessions.size()));
            txn.session = sessions[which].first;
            txn.cxid = ++sessions[which].second;
            if (rng.chance(10)) txn.cxid -= 1, sessions[which].second -= 1;
            txn.confirmed = txn.cxid > 3 ? txn.cxid - 3 : 0;
            if (rng.chance(4)) {
                const bool by_leader = rng.chance(500);
                txn.op = OpCode::close_session, body.push_back(by_leader ? '\1' : '\0');
                if (by_leader) txn.cxid = 0;
                if (rng.chance(900)) sessions[which] = sessions.back(), sessions.pop_back();
            } else if (rng.chance(2)) {  // it is not heard of any more
                sessions[which] = sessions.back(), sessions.pop_back();
                txn.op = OpCode::multi, body = random_multi();
            } else if (rng.chance(10)) {
                const std::uint64_t begin = coord::next_holding(txn.cxid - 1);
                const bool is_void = rng.chance(100);
                txn.op = OpCode::attach_session, Writer(body).u64(counter);
                txn.cxid = is_void ? begin + 1 : begin;
                sessions[which].second = is_void ? sessions[which].second - 1 : begin;
            } else if (rng.chance(200)) {
                txn.op = OpCode::multi, body = random_multi();
            } else if (rng.chance(20)) {
                txn.op = OpCode::auth, body = random_identities();
            } else {
                body = random_body(txn.op);
            }
        }
        txn.body = body;
        return txn;
    }

    // Of what everybody may read no ACL need be told.
    static bool are_alike(const Bytes& told, const Bytes& acl) {
        return told == acl || (told.empty() && sim::allows(acl, {}, 1));
    }

    bool same_events(std::size_t first) {
        const std::vector<Model::PathChange>& all = model->all_changes();
        if (heard.all.size() != all.size() - first) return differs("so many events");
        for (std::size_t i = 0; i < heard.all.size(); i++) {
            const Model::PathChange& one = heard.all[i];
            const Model::PathChange& other = all[first + i];
            const bool same = one.type == other.type && one.path == other.path &&
                              one.zxid == other.zxid && are_alike(one.acl, other.acl);
            if (!same) return differs("the event at", one.path);
        }
        return true;
    }

    bool step() {
        Bytes body;
        const Txn txn = next(body);
        const std::size_t first = model->all_changes().size();
        heard.all.clear();
        const coord::Outcome* const outcome = machine->apply(txn, heard);
        const sim::Answer answer = model->apply(txn);
        if ((outcome == nullptr) != answer.is_void) return differs("void, or not");
        if (!same_events(first)) return false;
        tally.events += heard.all.size();
        if (outcome == nullptr) return tally.voids += 1, true;
        if (outcome->error != answer.error) {
            return differs("the error", Bytes(coord::name(outcome->error)) + ", expected " +
                                            coord::name(answer.error));
        }
        if (txn.op == OpCode::reconfig && outcome->error != answer.error) return differs("a step");
        const bool is_admit = txn.op == OpCode::admit || txn.op == OpCode::reconfig;
        if (is_admit) return tally.admits += 1, true;
        if (outcome->path != answer.path) return differs("the path", outcome->path);
        if (outcome->session != answer.session) return differs("the session");
        if (outcome->error == Errc::ok && !sim::same(outcome->stat, answer.stat)) {
            return differs("the stat", sim::show(outcome->stat) + " " + sim::show(answer.stat));
        }
        if (!sim::same(outcome->parts, answer.parts)) return differs("the parts");
        const bool is_good = outcome->error == Errc::ok;
        const bool is_expired = outcome->error == Errc::session_expired;
        tally.good += is_good ? 1u : 0u;
        tally.full += outcome->error == Errc::quota_exceeded ? 1u : 0u;
        tally.large += outcome->error == Errc::too_large && txn.op != OpCode::multi ? 1u : 0u;
        tally.multis += is_good && txn.op == OpCode::multi ? 1u : 0u;
        tally.expired += is_expired ? 1u : 0u;
        if (is_good && txn.op == OpCode::multi) count_parts(txn);
        tally.failed += !is_good && !is_expired ? 1u : 0u;
        return true;
    }

    void count_parts(const Txn& txn) {
        coord::Reader in(txn.body);
        for (std::uint32_t left = in.u32(); left > 0; left--) {
            const auto op = static_cast<OpCode>(in.u8());
            (void)in.bytes(SIZE_MAX);
            tally.removed += op == OpCode::remove_all ? 1u : 0u;
            tally.taken += op == OpCode::take_over ? 1u : 0u;
            tally.guarded += op == OpCode::guard ? 1u : 0u;
        }
    }

    // All nodes, all children, all ephemerals.
    bool same_state() {
        machine->audit();
        bool same = machine->tree().size() == model->size();
        std::size_t open = 0;
        machine->tree().visit([&](const coord::NodeView& node) {
            const Bytes path(node.path);
            const Model::Version* const version = model->at(path, model->frontier());
            tally.counted += sim::is_stats(path) ? 1u : 0u;
            same = same && version != nullptr && version->present &&
                   sim::same(version->stat, node.stat) && version->data == node.data &&
                   version->acl == node.acl;
            std::vector<Bytes> names;
            same = same && machine->tree().children(path, "", SIZE_MAX, names) == Errc::ok &&
                   model->had_children(path, model->frontier(), names);
        });
        for (const auto& entry : model->sessions()) {
            if (!entry.second.open) continue;
            open += 1;
            const coord::SessionRecord* const session = machine->find_session(entry.first);
            same = same && session != nullptr && session->cxid == entry.second.cxid &&
                   machine->tree().owned(entry.first) == entry.second.ephemerals.size();
        }
        same = same && open == machine->sessions().size();
        return same || differs("the state");
    }

    // A save that is under way while transactions are applied; then the machine goes on from it, or
    // from one of now, in another life.
    bool work_on_save() {
        if (!machine->is_saving()) {
            if (!rng.chance(5)) return true;
            digest_at_save = machine->digest();
            saved.clear();
            machine->begin_save();
        }
        if (!machine->save_slice(400, saved)) return true;
        Machine read(limits(), rng.next());
        if (read.load(saved) != Errc::ok) return differs("a save is not read");
        if (read.digest() != digest_at_save) return differs("a save is of another state");
        tally.saves += 1;
        if (!rng.chance(300)) return true;
        saved.clear();
        machine->begin_save();
        while (!machine->save_slice(65536, saved)) {
        }
        std::unique_ptr<Machine> other(new Machine(limits(), rng.next()));
        if (other->load(saved) != Errc::ok) return differs("a whole save is not read");
        if (other->digest() != machine->digest()) return differs("another digest");
        machine = std::move(other);
        return true;
    }

    bool run(std::uint64_t count) {
        for (std::uint64_t i = 0; i < count; i++) {
            if (!step() || !work_on_save()) return false;
            if (i % 1000 == 0 && !same_state()) return false;
        }
        return same_state();
    }
};

}  // namespace

int main(int argc, char** argv) {
    std::uint64_t seed = 1, count = 100000;
    for (int i = 1; i < argc; i++) {
        if (arguments::take(argv[i], "--seed=", seed)) continue;
        if (arguments::take(argv[i], "--runs=", count)) continue;
        std::fprintf(stderr, "sim_model_ops [--seed=N] [--runs=N]\n");
        return 2;
    }
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    std::uint64_t done = 0;
    Tally tally;
    for (; done < count; seed++) {
        const std::uint64_t length = (std::min)(round_length, count - done);
        Round round(seed);
        round.tally = tally;
        const bool is_same = round.run(length);
        tally = round.tally;
        if (!is_same) {
            std::printf("with --seed=%llu\n", static_cast<unsigned long long>(seed));
            return 1;
        }
        done += length;
    }
    const auto show = [](const char* what, std::uint64_t number) {
        std::printf("%s %llu\n", what, static_cast<unsigned long long>(number));
    };
    show("transactions", done), show("good", tally.good), show("of these multis", tally.multis);
    show("failed", tally.failed), show("expired", tally.expired), show("void", tally.voids);
    show("events", tally.events), show("saves", tally.saves), show("admits", tally.admits);
    show("remove_alls", tally.removed), show("take_overs", tally.taken);
    show("guarded", tally.guarded), show("over a quota", tally.full);
    show("of quotas on too much", tally.large), show("stats seen", tally.counted);
    const bool is_little =
        done >= 10000 && (tally.removed == 0 || tally.admits == 0 || tally.taken == 0 ||
                          tally.full == 0 || tally.counted == 0);
    if (tally.good * 4 < done || is_little) return std::printf("too few took effect\n"), 1;
    return 0;
}
