// A failing run of sim_random, made small: the fewest settings that are not the plainest, then the
// fewest faults and deeds of clients, as long as it fails in the same way.
#pragma once

#include "../../examples/support/shrink.hpp"
#include "profile.hpp"

#include <functional>

namespace sim {

// What a run came to.
struct RunResult {
    std::string failure;      // in which way, without numbers; empty: it did not fail
    std::vector<u64> faults;  // that there were
    std::vector<u64> deeds;
};

// The way in which a run fails: the property, and of what must come about what it was.
inline std::string failure_of(const std::string& violation) {
    const std::size_t colon = violation.find(':');
    const std::string property = violation.substr(0, colon);
    if (property != "P16" && property != "P19") return property;
    const std::size_t end = violation.find(';');
    std::string text;
    for (const char c : violation.substr(0, end)) {
        const bool is_digit = c >= '0' && c <= '9';
        if (!is_digit || text.size() < property.size()) text += c;
    }
    return text;
}

inline std::string list_text(const std::vector<u64>& numbers) {
    std::string text;
    for (const u64 number : numbers) text += (text.empty() ? "" : ",") + std::to_string(number);
    return text.empty() ? "none" : text;
}

inline std::vector<u64> list_of(const char* text) {
    std::vector<u64> numbers;
    while (*text >= '0' && *text <= '9') {
        char* end = nullptr;
        numbers.push_back(std::strtoull(text, &end, 10));
        text = *end == ',' ? end + 1 : end;
    }
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

class Shrinking {
public:
    using Try = std::function<RunResult(const Profile&)>;
    static constexpr std::size_t runs_max = 4000;
    static constexpr u32 salts = 60;

    Shrinking(const Profile& profile, Try attempt)
        : drawn_(profile), now_(profile), try_(std::move(attempt)), shrinker_(runs_max) {}

    // RETURNS false where it does not fail to begin with.
    bool go() {
        first_ = try_(now_);
        if (first_.failure.empty()) return false;
        last_ = first_;
        turn_down();
        find_salt();
        for (int i = 0; i < 2; i++) {
            leave_out(now_.are_all_faults, now_.faults, last_.faults);
            leave_out(now_.are_all_deeds, now_.deeds, last_.deeds);
            turn_down();
        }
        leave_out(now_.are_all_deeds, now_.deeds, last_.deeds);
        return true;
    }

    const Profile& profile() const { return now_; }
    const RunResult& first() const { return first_; }
    const RunResult& last() const { return last_; }
    std::size_t runs() const { return shrinker_.runs(); }

    // What is to be added to --seed=N.
    std::string command() {
        std::string with;
        const std::vector<Setting> was = settings_of(drawn_), is = settings_of(now_);
        for (std::size_t i = 0; i < is.size(); i++) {
            if (was[i].value() == is[i].value()) continue;
            with += (with.empty() ? " --with=" : ",") + std::string(is[i].name) + ":" +
                    std::to_string(is[i].value());
        }
        if (now_.salt != 0) with += " --salt=" + std::to_string(now_.salt);
        if (!now_.are_all_faults) with += " --faults=" + list_text(now_.faults);
        if (!now_.are_all_deeds) with += " --deeds=" + list_text(now_.deeds);
        return with + (now_.canary ? " --canary" : "");
    }
    // Kinds of faults that are on.
    static std::size_t kinds(Profile profile) {
        std::size_t count = 0;
        for (const Setting& each : settings_of(profile)) {
            count += each.is_fault && each.value() != each.least ? 1u : 0u;
        }
        return count;
    }

private:
    bool fails(const Profile& profile) {
        RunResult result = try_(profile);
        if (result.failure != first_.failure) return false;
        last_ = std::move(result);
        return true;
    }

    void turn_down() {
        std::vector<support::Dial> dials;
        for (const Setting& each : settings_of(now_)) {
            dials.push_back({each.name, each.value(), each.least});
        }
        const auto turned = [this, &dials] {
            Profile profile = now_;
            const std::vector<Setting> settings = settings_of(profile);
            for (std::size_t i = 0; i < dials.size(); i++) settings[i].set(dials[i].value);
            settle_profile(profile);
            return profile;
        };
        shrinker_.turn_down(dials, [this, &turned] { return fails(turned()); });
        now_ = turned();
    }

    // Another chance for each fault and deed is another run: it may take some until one fails.
    // Where none does, what is left out moves all that comes later, and less can go.
    void find_salt() {
        for (u32 salt = 1; salt <= salts; salt++) {
            Profile profile = now_;
            profile.salt = salt, profile.faults_for = drawn_.faults_for;
            if (!fails(profile)) continue;
            now_ = profile;
            return;
        }
    }

    // `there_were` is of the last run that failed.
    void leave_out(bool& are_all, std::vector<u64>& list, const std::vector<u64>& there_were) {
        const bool were_all = are_all;
        list = there_were, are_all = false;
        std::sort(list.begin(), list.end());
        if (were_all && !fails(now_)) {  // it is what is written down that has to fail
            are_all = true, list.clear();
            return;
        }
        shrinker_.leave_out(list, [this] { return fails(now_); });
    }

    Profile drawn_;
    Profile now_;
    Try try_;
    support::Shrinker shrinker_;
    RunResult first_;
    RunResult last_;
};

}  // namespace sim
