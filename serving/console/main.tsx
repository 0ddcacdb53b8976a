/** The page: which model, what to ask it, and how it and its versions are. */
import { render } from "preact";
import { useState } from "preact/hooks";
import { ServerError, messageOf } from "./api";
import { Ask } from "./ask";
import { Model, listModels } from "./models";
import { usePolling } from "./polling";
import { TokenForm } from "./token";
import { Traffic } from "./traffic";
import { Versions } from "./versions";

function App() {
  const [name, setName] = useState("");
  const [models, setModels] = useState<Model[]>([]);
  const [complete, setComplete] = useState(true);
  const [error, setError] = useState("");
  const [refused, setRefused] = useState(false);
  const [login, setLogin] = useState(0);
  usePolling(async (isCurrent) => {
    try {
      const found = await listModels(name);
      if (!isCurrent()) return;
      setModels(found.models);
      setComplete(found.complete);
      setError("");
      setRefused(false);
    } catch (problem) {
      if (!isCurrent()) return;
      setError(messageOf(problem));
      setRefused(problem instanceof ServerError && problem.status === 401);
    }
  }, [name, login]);
  const model = models.find((each) => each.name === name) ?? (complete ? models[0] : undefined);
  return (
    <main>
      <header>
        <h1>Model server</h1>
        {!refused && <ModelField {...{ models, complete, setName }} name={model?.name ?? name} />}
      </header>
      <p role="alert" class="error">{error}</p>
      {refused && <TokenForm onToken={() => setLogin(login + 1)} />}
      {!refused && model && (
        <>
          <Ask key={`${model.name} ${login}`} model={model} />
          <Versions model={model} />
          <Traffic key={model.name} model={model.name} />
        </>
      )}
    </main>
  );
}

interface ModelFieldProps {
  models: Model[];
  complete: boolean;
  name: string;
  setName: (name: string) => void;
}

/** A choice of all models, or a field for a name where the token is not for all. */
function ModelField({ models, complete, name, setName }: ModelFieldProps) {
  return (
    <label>
      Model
      {complete ? (
        <select value={name} onChange={(event) => setName(event.currentTarget.value)}>
          {models.map((each) => <option key={each.name}>{each.name}</option>)}
        </select>
      ) : (
        <input value={name} onChange={(event) => setName(event.currentTarget.value)} />
      )}
    </label>
  );
}

render(<App />, document.body);
