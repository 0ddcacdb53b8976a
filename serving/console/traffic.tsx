/** Rate, latency and errors of a model over the last minutes. */
import { useRef, useState } from "preact/hooks";
import { messageOf } from "./api";
import { Point, Reading, between, read } from "./metrics";
import { usePolling } from "./polling";

const POINTS = 90; // three minutes
const WIDTH = 300, HEIGHT = 60; // units of the drawing

export function Traffic({ model }: { model: string }) {
  const [points, setPoints] = useState<Point[]>([]);
  const [error, setError] = useState("");
  const last = useRef<Reading>(undefined);
  usePolling(async (isCurrent) => {
    try {
      const now = await read(model);
      if (!isCurrent()) return;
      const earlier = last.current;
      last.current = now;
      if (earlier) setPoints((old) => [...old, between(earlier, now)].slice(-POINTS));
      setError("");
    } catch (problem) {
      if (isCurrent()) setError(messageOf(problem));
    }
  }, [model]);
  return (
    <section aria-labelledby="traffic">
      <h2 id="traffic">Traffic</h2>
      <p role="alert" class="error">{error}</p>
      <div class="charts">
        <Chart name="Requests per second" values={points.map((each) => each.rate)} />
        <Chart name="Mean latency in the server, ms" values={points.map((each) => each.latency)} />
        <Chart name="Errors per second" values={points.map((each) => each.errors)} />
      </div>
    </section>
  );
}

function Chart({ name, values }: { name: string; values: (number | null)[] }) {
  const known = values.filter((value) => value !== null);
  const most = Math.max(...known, 0), now = known.at(-1);
  const x = (index: number) => WIDTH * (1 - (values.length - 1 - index) / (POINTS - 1));
  const y = (value: number) => HEIGHT - 2 - (HEIGHT - 4) * (most ? value / most : 0);
  const drawn = values.flatMap((value, index) => (value === null ? [] : [`${x(index).toFixed(1)},${y(value).toFixed(1)}`]));
  return (
    <figure>
      <figcaption>{name}</figcaption>
      <strong>{now === undefined ? "–" : shown(now)}</strong> {now !== undefined && <span class="hint">most {shown(most)}</span>}
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
        <line x1="0" x2={WIDTH} y1={HEIGHT - 1} y2={HEIGHT - 1} />
        <polyline points={drawn.join(" ")} />
      </svg>
    </figure>
  );
}

const shown = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(value ? 2 : 1));
