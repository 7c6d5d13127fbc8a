// Where pictures and places lie on the map: by their true poses, by odometry, by where they were localized, or by time.
const queries = spots.filter((spot) => spot.t !== undefined);
const duration = Math.max(1, ...queries.map((spot) => spot.t));
const mapSpots = spots.filter((spot) => spot.t === undefined);
const mapSize = Math.max(1, data.map_places.length, ...mapSpots.map((spot) => spot.id + 1));

function byPoses(id, name, caption, where, places) {
  const path = queries.map(where).filter(Boolean);
  return { id, name, caption, at: where, path, places, isTime: false };
}

function layouts() {
  const found = [];
  const isLoops = data.mode === "loops";
  if (queries.some((spot) => spot.truth)) {
    found.push(byPoses("truth", "true path", "Positions are the true ones: a long line joins places that are far apart.",
      (spot) => spot.truth || spot.map, data.map_places));
  } else if (!isLoops && queries.some((spot) => spot.found)) {
    found.push(byPoses("found", "map", "Pictures lie where they were localized; those that were not are in the list only.",
      (spot) => spot.found || spot.map, data.map_places));
  }
  if (isLoops && queries.some((spot) => spot.odometry)) {
    found.push(byPoses("odometry", "odometry", "Positions are those of the odometry: right loops are as long as it drifted.",
      (spot) => spot.odometry, []));
  }
  const hasMap = mapSpots.length > 0;
  found.push({
    id: "time", name: "time", isTime: true, path: [], places: [],
    caption: hasMap ? "Below the recording from its start to its end, above the places of the map in their order."
      : "The recording from its start to its end; an arc joins a picture and the place it was taken for.",
    at: (spot) => (spot.t === undefined ? [(spot.id + 0.5) / mapSize * duration, 1] : [spot.t, 0]),
  });
  return found;
}
const LAYOUTS = layouts();
const layout = () => LAYOUTS.find((each) => each.id === choice.layout) || LAYOUTS[0];
