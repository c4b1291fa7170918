// Is there an order of the calls to one node, each at some moment between its call and its answer,
// in which every answer is right? Wing's and Gong's search with Lowe's memory of where it has been,
// one node at a time. It knows nothing of logs, zxids or replicas: what it says of reads that claim
// to be linearizable does not rest on what checkers.hpp believes. Of a call whose outcome is not
// known nobody can say when it was done, or whether.
#pragma once

#include "coord.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace sim {

// One node as a register. What is written there is a number, never the same twice.
struct RegisterState {
    bool present = false;
    std::uint64_t value = 0;
    std::int32_t version = 0;

    friend bool operator==(const RegisterState& a, const RegisterState& b) {
        return a.present == b.present && a.value == b.value && a.version == b.version;
    }
};

struct RegisterCall {
    enum class Kind : std::uint8_t { get, create, set, remove };
    static constexpr std::uint64_t never = UINT64_MAX;

    Kind kind = Kind::get;
    std::uint64_t value = 0;                      // to be written, or what was read
    std::int32_t asked = coord::any_version;      // set, remove: of which version alone
    std::int32_t version = 0;                     // told: get, create and set
    coord::Errc error = coord::Errc::ok;          // told
    std::uint64_t called = 0;
    std::uint64_t returned = never;               // never: the outcome is not known

    // What a node that is there, or is not, says to it, and becomes.
    coord::Errc apply(RegisterState& state) const {
        if (kind == Kind::create) {
            if (state.present) return coord::Errc::node_exists;
            state = {true, value, 0};
            return coord::Errc::ok;
        }
        if (!state.present) return coord::Errc::no_node;
        const bool is_right = asked == coord::any_version || asked == state.version;
        if (kind == Kind::get) return coord::Errc::ok;
        if (!is_right) return coord::Errc::bad_version;
        if (kind == Kind::set) state.value = value, state.version += 1;
        if (kind == Kind::remove) state = {};
        return coord::Errc::ok;
    }
    // RETURNS whether that can be what has happened, and makes it happen.
    bool can_follow(RegisterState& state) const {
        const RegisterState before = state;
        const coord::Errc said = apply(state);
        if (returned == never) return !(state == before);  // or leave it out
        if (said != error) return false;
        if (said != coord::Errc::ok || kind == Kind::remove) return true;
        return state.version == version && (kind != Kind::get || state.value == value);
    }
};

enum class Verdict : std::uint8_t { linearizable, flawed, too_long };

class RegisterSearch {
public:
    static constexpr std::size_t steps_max = 2000000;

    explicit RegisterSearch(const std::vector<RegisterCall>& calls)
        : calls_(calls), done_((calls.size() + 7) / 8, '\0') {
        link();
    }
    std::size_t steps() const { return steps_; }

    Verdict run() {
        std::size_t at = events_[0].next;
        while (left_ > 0) {
            if (++steps_ > steps_max) return Verdict::too_long;
            Event& event = events_[at];
            if (event.is_return) {  // it should have been placed by now: the last one was wrong
                bool was_free = true;
                while (was_free && !placed_.empty()) at = take_back(was_free);
                if (was_free) return Verdict::flawed;
                continue;
            }
            at = place(at) ? events_[0].next : events_[at].next;
        }
        return Verdict::linearizable;
    }

private:
    // Calls and returns in their order, as a list out of which what is placed is lifted. The first
    // is before all; a return that never comes is not in it, and the last one that does ends it.
    struct Event {
        std::uint64_t at = 0;
        std::size_t call = 0;
        bool is_return = false;
        std::size_t other = 0;  // a call's return, 0: there is none
        std::size_t last = 0;
        std::size_t next = 0;
    };
    struct Placed {
        std::size_t event;
        RegisterState before;
        bool is_free;  // it changes nothing: where it can be placed at all, nothing is lost by it
    };

    void link() {
        events_.emplace_back();
        for (std::size_t i = 0; i < calls_.size(); i++) {
            const RegisterCall& call = calls_[i];
            events_.push_back({call.called, i, false});
            if (call.returned == RegisterCall::never) continue;
            events_.push_back({call.returned, i, true});
            left_ += 1;
        }
        std::sort(events_.begin() + 1, events_.end(), [](const Event& a, const Event& b) {
            return a.at != b.at ? a.at < b.at : a.is_return < b.is_return;
        });
        std::vector<std::size_t> call_at(calls_.size());
        for (std::size_t i = 1; i < events_.size(); i++) {
            events_[i].last = i - 1, events_[i - 1].next = i;
            if (!events_[i].is_return) call_at[events_[i].call] = i;
            if (events_[i].is_return) events_[call_at[events_[i].call]].other = i;
        }
    }

    bool place(std::size_t at) {
        Event& event = events_[at];
        RegisterState next = state_;
        if (!calls_[event.call].can_follow(next)) return false;
        flip(event.call);
        if (!been_.insert(done_ + key(next)).second) {
            flip(event.call);
            return false;
        }
        placed_.push_back({at, state_, next == state_});
        state_ = next;
        lift(at);
        if (event.other != 0) lift(event.other), left_ -= 1;
        return true;
    }
    // RETURNS where to go on.
    std::size_t take_back(bool& was_free) {
        const Placed placed = placed_.back();
        placed_.pop_back();
        was_free = placed.is_free;
        Event& event = events_[placed.event];
        if (event.other != 0) put_back(event.other), left_ += 1;
        put_back(placed.event);
        flip(event.call);
        state_ = placed.before;
        return event.next;
    }

    void lift(std::size_t at) {
        const Event& event = events_[at];
        events_[event.last].next = event.next;
        if (event.next != 0) events_[event.next].last = event.last;
    }
    void put_back(std::size_t at) {
        const Event& event = events_[at];
        events_[event.last].next = at;
        if (event.next != 0) events_[event.next].last = at;
    }
    void flip(std::size_t call) {
        done_[call / 8] = static_cast<char>(done_[call / 8] ^ (1 << (call % 8)));
    }
    static std::string key(const RegisterState& state) {
        return std::to_string(state.value) + (state.present ? "+" : "-") +
               std::to_string(state.version);
    }

    const std::vector<RegisterCall>& calls_;
    std::vector<Event> events_;
    std::vector<Placed> placed_;
    std::set<std::string> been_;
    std::string done_;
    RegisterState state_;
    std::size_t left_ = 0;
    std::size_t steps_ = 0;
};

inline Verdict judge_register(const std::vector<RegisterCall>& calls) {
    return RegisterSearch(calls).run();
}

}  // namespace sim
