"""Loop-closure mode: map the drive that is going on, and find the places of it, and of a prebuilt map, again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from etr_ros import keyframes
from etr_ros.anytime import LEFT_OUT, TOO_LATE, UNLIMITED, Allowance
from etr_ros.calibration import LOOPS
from etr_ros.config import Config
from etr_ros.consistency import Hypothesis
from etr_ros.database import MapInfo, PlaceMap
from etr_ros.evidence import Past
from etr_ros.geometry import NOT_CALIBRATED
from etr_ros.loop_filter import LoopFilter
from etr_ros.neighbours import Neighbours
from etr_ros.pipeline import Drive, Networks, Stopwatch, require_live, require_same_features
from etr_ros.session import Keyframe, SessionMap
from etr_ros.types import Candidate, Frame, Geometry, LoopAnswer, LoopClosure, Place, PlaceMatch
from etr_ros.views import look

NOT_COMPUTED = Geometry(-1, -1)
UNCALIBRATED = 2  # times the local matches: without intrinsics one is tied to a line, not to a point
CONFIRMED = 10  # local matches are enough where the robot is expected and the depths of both views agree


class LoopDetector:
    """Builds the map of a session and looks for loops in it and in a prebuilt map. Frames come in driving order."""

    def __init__(self, networks: Networks, config: Config, prebuilt: PlaceMap | None = None, session: str = "") -> None:
        """Raises MapError when the prebuilt map's features were made with another configuration."""
        if prebuilt is not None:
            require_same_features(prebuilt, networks.extractor)
        self.networks, self.prebuilt, self._config = networks, prebuilt, config
        self.restart(session)

    @staticmethod
    def open(map_path: Path | None, config: Config) -> LoopDetector:
        """Load the networks, and the prebuilt map if there is one. Raises MapError, WeightsError or ConfigError."""
        prebuilt = None if map_path is None else PlaceMap(map_path, config.memory.ceiling_mb)
        return LoopDetector(Networks.load(config), config, prebuilt)

    @property
    def info(self) -> MapInfo:
        """The map that `answer` matches with: the prebuilt one, without it the session's."""
        return self.prebuilt.info if self.prebuilt else self.session.info

    @property
    def places(self) -> Sequence[Place]:
        """All places of that map; the index is the place id."""
        return (self.prebuilt or self.session).places

    def thumbnail(self, place_id: int) -> NDArray[np.uint8] | None:
        """A small (H, W, 3) BGR picture of a place of that map, or None when it has none."""
        return (self.prebuilt or self.session).thumbnail(place_id)

    def load_map(self, map_path: Path) -> None:
        """Localize in another prebuilt map from now on; on failure the one in use stays. Raises MapError."""
        prebuilt = PlaceMap(map_path, self._config.memory.ceiling_mb)
        require_same_features(prebuilt, self.networks.extractor)
        self.prebuilt, self._past_in_map = prebuilt, Past()

    def save_map(self, path: Path) -> MapInfo:
        """Write the session as a map; may be called from another thread. Raises MapError."""
        return self.session.save(path, self._config.retrieval.index, self._config.to_dict())

    def restart(self, session: str = "") -> None:
        """Forget this session, if there is one, and begin another."""
        self.session = SessionMap(self.networks.extractor.spec, session)
        least, agreement = self.networks.least(LOOPS, self._config), self._config.decision.min_agreement
        self._filter = LoopFilter(self._config.loop, least, agreement)
        self._past, self._past_in_map = Past(), Past()
        self._neighbours = Neighbours()
        self._last: Frame | None = None

    @property
    def pending(self) -> int:
        """Loops that wait for support."""
        return self._filter.pending

    def configure(self, config: Config) -> None:
        """Take over values that may change while running. Raises ConfigError for any other change."""
        require_live(self._config, config)
        self.networks.check(config)
        self._filter.configure(config.loop, self.networks.least(LOOPS, config), config.decision.min_agreement)
        self._config = config

    def is_keyframe(self, frame: Frame) -> bool:
        """Whether the robot has moved far enough since the last keyframe.

        Once poses are known, a picture without one is no keyframe: odometry could not contradict its loops.
        """
        if self._last is not None and self._last.pose is not None and frame.pose is None:
            return False
        return self._last is None or keyframes.far_enough(self._last, frame, self._config.keyframe)

    def answer(
        self, frame: Frame, segment: int = 0, asked: bool = False, allowance: Allowance = UNLIMITED
    ) -> LoopAnswer | None:
        """Add a keyframe; any other picture is only looked at when somebody `asked` for it, else None.

        Raises as `add` does.
        """
        if self.is_keyframe(frame):
            return self.add(frame, segment, allowance)
        if not asked:
            return None
        watch = Stopwatch()
        view = look(self.networks.extractor, frame, self._config.geometry)
        watch.lap("extract")
        places, before, loop = self.prebuilt or self.session, None, self._config.loop
        if self.prebuilt is None:  # what was just driven looks the same and tells nothing
            way_m = self.session.way_to(frame, segment)
            before = self.session.places_before(frame.stamp_ns, way_m, loop.exclusion_s, loop.exclusion_m)
        match = self.networks.find(
            view, frame.stamp_ns, places, self._config, watch, before=before, allowance=allowance
        )
        return LoopAnswer(match, ())

    def add(self, frame: Frame, segment: int = 0, allowance: Allowance = UNLIMITED) -> LoopAnswer:
        """Look for `frame` in what was driven before and in the prebuilt map, then make it a place of the session.

        `segment` is the number of the unbroken piece of odometry that the frame's pose belongs to.
        Raises ImageError when no features can be computed from the picture, CameraError when depth does not fit it.
        """
        watch, config, session = Stopwatch(), self._config, self.session
        view = look(self.networks.extractor, frame, config.geometry)
        watch.lap("extract")
        view = self._neighbours.complete(view, frame.pose, config.geometry, segment)
        watch.lap("triangulate")
        way_m = session.way_to(frame, segment)
        before = session.places_before(frame.stamp_ns, way_m, config.loop.exclusion_s, config.loop.exclusion_m)
        keyframe = session.add(frame, view, segment)
        self._last = frame
        self._filter.add(keyframe.place, way_m, segment)

        expected = self._filter.expected(keyframe.place.place_id, before)
        drive = Drive(keyframe.place, self._past, segment)
        match = self.networks.find(
            view,
            frame.stamp_ns,
            session,
            config,
            watch,
            before=before,
            expected=expected,
            drive=drive,
            allowance=allowance,
        )
        self._past.add(keyframe.place, match, segment)
        loops, hypotheses = self._follow_up(match, keyframe, None, expected)
        if self.prebuilt is not None:
            drive = Drive(keyframe.place, self._past_in_map, segment)
            match = self.networks.find(
                view, frame.stamp_ns, self.prebuilt, config, watch, drive=drive, allowance=allowance
            )
            self._past_in_map.add(keyframe.place, match, segment)
            more_loops, more_hypotheses = self._follow_up(match, keyframe, self.prebuilt)
            loops, hypotheses = loops + more_loops, hypotheses + more_hypotheses
        loops += self._filter.update(keyframe.place, hypotheses)
        watch.lap("support")
        return LoopAnswer(match, tuple(loops))

    def finish(self) -> tuple[LoopClosure, ...]:
        """The drive is over: the loops that still wait, rejected."""
        return tuple(self._filter.flush())

    def _follow_up(
        self, match: PlaceMatch, keyframe: Keyframe, prebuilt: PlaceMap | None, expected: Sequence[int] = ()
    ) -> tuple[list[LoopClosure], list[Hypothesis]]:
        """The hypotheses that the candidates of one map are worth; without any, the best candidate as rejected."""
        reasons = [self._why_not(each, each.place.place_id in expected) for each in match.candidates]
        worth = [candidate for candidate, reason in zip(match.candidates, reasons, strict=True) if not reason]
        worth.sort(key=lambda each: (not (each.geometry and each.geometry.is_metric), -(each.inliers or 0)))
        if worth or not match.candidates:
            return [], [self._hypothesis(candidate, keyframe, prebuilt) for candidate in worth]
        best = match.candidates[0]
        found = best.geometry or NOT_COMPUTED
        return [LoopClosure(keyframe.place, best.place, found, best.probability, reason=reasons[0])], []

    def _why_not(self, candidate: Candidate, is_expected: bool) -> str:
        """Why a candidate is no hypothesis, in words; empty when it is one.

        Where the robot is expected, its geometry must agree with odometry, and that tells more than the probability; a
        few matches are enough there when the depths of both views agree.
        """
        probability, least = candidate.probability, self._config.loop.min_probability
        if probability is not None and probability < least and not is_expected:
            return f"match probability {probability:.2f} is below {least:.2f}"
        if candidate.geometry is None and candidate.reason in (TOO_LATE, LEFT_OUT):
            return candidate.reason
        if candidate.geometry is None:
            return f"it is not among the best {self._config.geometry.candidates}, whose geometry is computed"
        return self._why_not_sure(candidate.geometry, is_expected)

    def _why_not_sure(self, found: Geometry, is_expected: bool) -> str:
        needed, config = self._config.geometry.min_inliers, self._config.loop
        is_confirmed = is_expected and found.agreement >= self._config.decision.min_agreement
        if is_confirmed:
            needed = min(needed, CONFIRMED)
        if found.degeneracy == NOT_CALIBRATED:
            needed *= UNCALIBRATED
        if found.inliers < needed:
            return f"{found.inliers} local matches agree with one motion, {needed} are needed"
        if found.coverage < config.min_coverage and not is_confirmed:
            return f"the local matches that agree spread over {100 * found.coverage:.0f} % of the picture only"
        if found.match_t_query is None or found.covariance is None:
            return ""
        if not found.is_metric:
            return found.degeneracy
        sigma_m = math.sqrt(np.trace(found.covariance[:3, :3]))
        if sigma_m > config.max_sigma_m:
            return f"the relative pose is only known to {sigma_m:.2f} m, {config.max_sigma_m:.2f} m are asked for"
        return ""

    def _hypothesis(self, candidate: Candidate, keyframe: Keyframe, prebuilt: PlaceMap | None) -> Hypothesis:
        place, found = candidate.place, candidate.geometry or NOT_COMPUTED
        query = keyframe.place, keyframe.way_m, keyframe.segment
        if prebuilt is not None:
            return Hypothesis(
                query[0], place, prebuilt.info.map_id, found, candidate.probability, query[1], None, query[2]
            )
        matched = self.session.keyframes[place.place_id]
        return Hypothesis(
            query[0], place, "", found, candidate.probability, query[1], matched.way_m, query[2], matched.segment
        )
