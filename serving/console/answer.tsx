/** An answer as bars, or as the server wrote it, with its latency. */
import { Answer, Bar } from "./question";

export interface Outcome {
  title: string;
  answer?: Answer;
  error?: string;
}

const LONGEST = 20_000; // characters that are shown

export function AnswerView({ title, answer, error }: Outcome) {
  return (
    <article>
      <h3>{title}</h3>
      {error !== undefined && <p class="error">{error}</p>}
      {answer && (
        <>
          {answer.bars.length > 0 ? <Bars bars={answer.bars} /> : <pre tabindex={0}>{answer.text.slice(0, LONGEST)}</pre>}
          <p class="hint">{answer.version && `Version ${answer.version}, `}{answer.milliseconds.toFixed(0)} ms round trip</p>
        </>
      )}
    </article>
  );
}

function Bars({ bars }: { bars: Bar[] }) {
  const scores = bars.map(({ score }) => score);
  const areShares = scores.every((score) => score >= 0 && score <= 1);
  const whole = areShares ? 1 : Math.max(...scores);
  return (
    <ol class="bars">
      {bars.map(({ label, score }) => (
        <li key={label}>
          <span>{label}</span>
          <span>{areShares ? `${(100 * score).toFixed(1)} %` : score.toPrecision(4)}</span>
          <i><b style={{ width: `${whole > 0 ? Math.max(0, (100 * score) / whole) : 0}%` }} /></i>
        </li>
      ))}
    </ol>
  );
}
