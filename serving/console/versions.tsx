/** The versions of a model, with their labels, states and last errors. */
import { Model } from "./models";

export function Versions({ model }: { model: Model }) {
  const labelsOf = (version: string) =>
    Object.entries(model.version_labels).filter(([, each]) => each === version).map(([label]) => label).join(", ");
  return (
    <section aria-labelledby="versions">
      <h2 id="versions">Versions</h2>
      <table>
        <thead><tr><th>Version</th><th>Labels</th><th>State</th><th>Last error</th></tr></thead>
        <tbody>
          {model.model_version_status.map(({ version, state, status }) => (
            <tr key={version}>
              <td>{version}</td>
              <td class="long">{labelsOf(version)}</td>
              <td class={status.error_message ? "state error" : `state ${state.toLowerCase()}`}>{state}</td>
              <td class="long">{status.error_message}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
