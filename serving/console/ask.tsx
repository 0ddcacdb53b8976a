/** Asks a version, or two side by side, about an image or a JSON body. */
import { useEffect, useState } from "preact/hooks";
import { messageOf } from "./api";
import { AnswerView, Outcome } from "./answer";
import { Calls } from "./calls";
import { ImageField } from "./image";
import { Model, Signatures, Target, firstChoice, getSignatures, nameOf, targetsOf } from "./models";
import { Question, ask, getExample, methodForImage, wantsImage } from "./question";
import { SignatureTables } from "./signatures";

export function Ask({ model }: { model: Model }) {
  const [target, setTarget] = useState<Target>({});
  const [second, setSecond] = useState<Target | null>(null);
  const [signatures, setSignatures] = useState<Signatures>({});
  const [signature, setSignature] = useState("");
  const [request, setRequest] = useState({ body: "", method: "predict" });
  const [image, setImage] = useState<Blob>();
  const [error, setError] = useState("");
  const [outcomes, setOutcomes] = useState<Outcome[]>([]);
  const forImage = wantsImage(signature, signatures);

  const isLoaded = model.model_version_status.some(({ state }) => state === "AVAILABLE");
  useEffect(attempt(setError, async () => {
    if (!isLoaded) return;
    const found = await getSignatures(model.name, target);
    setSignatures(found);
    setSignature((old) => (old in found ? old : firstChoice(found)));
  }), [target, isLoaded]);
  useEffect(attempt(setError, async () => {
    if (!signature || forImage) return;
    const example = await getExample(model.name, target, signature);
    setRequest((old) => ({ ...example, body: old.body || example.body })); // what the person has typed meanwhile stays
  }), [signature, forImage]);

  const method = forImage ? methodForImage(signatures[signature]!) : request.method;
  const question: Question = { model: model.name, signature, method, body: request.body };
  const send = async (image?: Blob) => {
    const answers: Outcome[] = [];
    for (const each of second ? [target, second] : [target]) answers.push(await outcomeOf({ ...question, image }, each));
    setOutcomes(answers);
  };
  const chooseSignature = (name: string) => {
    setSignature(name);
    setOutcomes([]);
    setRequest({ body: "", method: "predict" });
  };
  const choose = (blob: Blob) => {
    setImage(blob);
    void send(blob);
  };
  return (
    <section aria-labelledby="ask">
      <h2 id="ask">Ask</h2>
      <div class="row">
        <TargetField label="Answer from" {...{ model }} value={target} onChange={(value) => setTarget(value ?? {})} />
        <TargetField label="Beside it" {...{ model }} value={second} onChange={setSecond} optional />
        <label>
          Signature
          <select value={signature} onChange={(event) => chooseSignature(event.currentTarget.value)}>
            {Object.keys(signatures).sort().map((each) => <option key={each}>{each}</option>)}
          </select>
        </label>
      </div>
      <p role="alert" class="error">{error}</p>
      <div class="asked">
        <div>
          {forImage && <ImageField image={image} onImage={choose} />}
          {signature && !forImage && (
            <label class="body">
              JSON body for :{method}
              <textarea rows={9} spellcheck={false} value={request.body}
                onInput={(event) => setRequest({ ...request, body: event.currentTarget.value })} />
            </label>
          )}
          <button class="main" disabled={!signature || (forImage && !image)} onClick={() => send(forImage ? image : undefined)}>
            {forImage && outcomes.length ? "Ask again" : "Ask"}
          </button>
        </div>
        <div class="answers" aria-live="polite">
          {outcomes.map((outcome, index) => <AnswerView key={index} {...outcome} />)}
          {!outcomes.length && <p class="hint">The answer appears here.</p>}
        </div>
      </div>
      <Calls question={{ ...question, image: forImage ? (image ?? new Blob([], { type: "image/jpeg" })) : undefined }} target={target} />
      <SignatureTables signatures={signatures} />
    </section>
  );
}

async function outcomeOf(question: Question, target: Target): Promise<Outcome> {
  try {
    return { title: nameOf(target), answer: await ask(question, target) };
  } catch (error) {
    return { title: nameOf(target), error: messageOf(error) };
  }
}

const attempt = (setError: (text: string) => void, work: () => Promise<void>) => () => {
  work().then(() => setError(""), (error) => setError(messageOf(error)));
};

interface TargetFieldProps {
  label: string;
  model: Model;
  value: Target | null;
  onChange: (value: Target | null) => void;
  optional?: boolean;
}

/** A choice among the labels and the versions of a model. */
function TargetField({ label, model, value, onChange, optional }: TargetFieldProps) {
  const targets: (Target | null)[] = optional ? [null, ...targetsOf(model)] : targetsOf(model);
  const keys = targets.map((each) => JSON.stringify(each));
  return (
    <label>
      {label}
      <select value={JSON.stringify(value)} onChange={(event) => onChange(JSON.parse(event.currentTarget.value))}>
        {targets.map((each, index) => <option key={keys[index]} value={keys[index]}>{each ? nameOf(each) : "nothing"}</option>)}
      </select>
    </label>
  );
}
