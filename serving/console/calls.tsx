/** The request of the page as a command and as Python, to copy. */
import { useRef, useState } from "preact/hooks";
import { hasToken } from "./api";
import { Target } from "./models";
import { Question, addressOf } from "./question";

const KINDS = ["curl", "Python", "gRPC"] as const;
const LONGEST = 2000; // characters of a body that stands in the text

export function Calls({ question, target }: { question: Question; target: Target }) {
  const [kind, setKind] = useState<(typeof KINDS)[number]>("curl");
  const [said, setSaid] = useState("");
  const shown = useRef<HTMLPreElement>(null);
  const text = kind === "curl" ? curl(question, target) : python(question, target, kind === "gRPC");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setSaid("Copied.");
    } catch { // browsers give pages without TLS no clipboard
      getSelection()?.selectAllChildren(shown.current!);
      setSaid("Selected. Copy it with your keyboard.");
    }
  };
  return (
    <details>
      <summary>The same call elsewhere</summary>
      <fieldset class="row">
        <legend class="hidden">Kind of call</legend>
        {KINDS.map((each) => (
          <label key={each}><input type="radio" name="kind" checked={kind === each} onChange={() => (setKind(each), setSaid(""))} />{each}</label>
        ))}
        <button onClick={copy}>Copy</button> <span role="status">{said}</span>
      </fieldset>
      <pre tabindex={0} ref={shown}>{text}</pre>
    </details>
  );
}

const root = () => new URL(".", location.href).href; // with the prefix that the page is behind

export function curl(question: Question, target: Target): string {
  const { image, body } = question;
  const token = hasToken() ? [`-H "Authorization: Bearer $TOKEN"`] : [];
  const data = image ? [`-H 'Content-Type: ${image.type}'`, `--data-binary @${fileOf(image)}`]
    : [body.length > LONGEST ? "-d @request.json" : `-d ${quoted(body)}`];
  return ["curl", ...token, ...data, quoted(root() + addressOf(question, target))].join(" ");
}

export function python(question: Question, { version, label }: Target, overGrpc: boolean): string {
  const { model, method, image, signature } = question;
  const where = overGrpc ? `grpc${location.protocol === "https:" ? "s" : ""}://${location.hostname}:8500` : root().replace(/\/$/, "");
  const token = hasToken() ? `, token=os.environ["TOKEN"]` : "";
  const choice = version ? `, version=${version}` : label ? `, label=${JSON.stringify(label)}` : "";
  const inputs = image ? imageInput(image, method) : jsonInput(question);
  return [
    `import ${[...(image ? [] : ["json"]), ...(token ? ["os"] : []), ...(image ? ["pathlib"] : [])].join(", ")}`,
    "", "from serving.client import Client", "",
    ...(image ? [] : [`body = json.loads(${bodyText(question.body)})`]),
    `with Client(${JSON.stringify(where)}, ${JSON.stringify(model)}${token}) as client:${overGrpc ? "  # 8500 unless --port says otherwise" : ""}`,
    `    print(client.${method}(${inputs}, signature=${JSON.stringify(signature)}${choice}))`,
  ].join("\n");
}

function imageInput(image: Blob, method: string): string {
  const path = `pathlib.Path(${JSON.stringify(fileOf(image))})`;
  return method === "classify" ? `[{"image/encoded": ${path}}]` : path;
}

function jsonInput({ body, method }: Question): string {
  if (method !== "predict") return `body["examples"]`;
  const { inputs, instances } = tolerant(body);
  if (inputs !== undefined || !Array.isArray(instances)) return `body["inputs"]`;
  const first: unknown = instances[0];
  const isRow = typeof first === "object" && first !== null && !Array.isArray(first) && !("b64" in first);
  return isRow ? `{name: [row[name] for row in body["instances"]] for name in body["instances"][0]}` : `body["instances"]`;
}

function tolerant(body: string): { inputs?: unknown; instances?: unknown } {
  try {
    return JSON.parse(body) ?? {};
  } catch {
    return {};
  }
}

const bodyText = (body: string) => (body.length > LONGEST ? `open("request.json").read()` : JSON.stringify(body));
const fileOf = (image: Blob) => (image instanceof File && /^[\w.-]+$/.test(image.name) ? image.name : "photo.jpg");
const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
