"""Playing, stepping and seeking."""

from __future__ import annotations

from esockd_cli.top.frame import Frame, Lost
from esockd_cli.top.player import PAST, Player, Position


class Moments:
    """One moment a second, but for ten seconds of silence after the fifth."""

    def __len__(self) -> int:
        return 200

    def moment(self, index: int) -> Frame | Lost:
        return Lost(at=1e9 + index + 10 * (index > 5), reason=str(index))


def play(index: int = 0) -> Player:
    player = Player(Moments())
    player.index = index
    return player


def test_moments_come_in_their_own_time_by_the_speed() -> None:
    player = play(5)
    assert player.due_in_s == 11
    player.speed = 4
    assert player.due_in_s == 2.75
    assert player.advance() == Moments().moment(6)
    assert player.due_in_s == 0.25


def test_it_stands_still_when_paused_and_at_the_end() -> None:
    player = play(199)
    assert player.is_at_end
    assert player.due_in_s is None
    player = play()
    player.is_paused = True
    assert player.due_in_s is None


def test_a_step_pauses_and_stays_within_the_recording() -> None:
    player = play(1)
    player.step(-1)
    player.step(-1)
    assert (player.index, player.is_paused) == (0, True)
    player.step(500)
    assert player.index == 199


def test_seeking_goes_by_time_and_by_one_moment_at_least() -> None:
    player = play(4)
    player.seek(1)
    assert player.index == 5
    player.seek(2)
    assert player.index == 6
    player.seek(60)
    assert player.index == 66
    player.seek(-60)
    assert player.index == 6
    player.seek(-1)
    assert player.index == 5
    player.seek(-10_000)
    assert player.index == 0
    player.seek(10_000)
    assert player.index == 199


def test_the_ends_are_one_key_away() -> None:
    player = play(50)
    player.go_to_end(is_last=True)
    assert player.index == 199
    player.go_to_end(is_last=False)
    assert player.index == 0


def test_the_past_of_a_moment_is_bounded() -> None:
    assert play(2).past() == [Moments().moment(index) for index in range(3)]
    assert len(play(199).past()) == PAST + 1


def test_the_speed_changes_by_powers_of_two_within_bounds() -> None:
    player = play()
    player.change_speed(1)
    assert player.speed == 2
    player.change_speed(-9)
    assert player.speed == 0.25
    player.change_speed(50)
    assert player.speed == 64


def test_a_position_says_how_far_it_is() -> None:
    assert play(6).position == Position(16, 209, 1.0, is_playing=True)
    assert play(199).position == Position(209, 209, 1.0, is_playing=False)
