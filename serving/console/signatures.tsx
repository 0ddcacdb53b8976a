/** The signatures of a version: names, dtypes and shapes of inputs and outputs. */
import { Signature, Signatures, Tensor } from "./models";

export function SignatureTables({ signatures }: { signatures: Signatures }) {
  const names = Object.keys(signatures).sort();
  return (
    <details>
      <summary>Signatures</summary>
      {names.map((name) => <SignatureTable key={name} name={name} signature={signatures[name]!} />)}
    </details>
  );
}

function SignatureTable({ name, signature }: { name: string; signature: Signature }) {
  const rows = [...rowsOf("input", signature.inputs), ...rowsOf("output", signature.outputs)];
  return (
    <table>
      <caption>{name}</caption>
      <thead><tr><th>Side</th><th>Name</th><th>Dtype</th><th>Shape</th></tr></thead>
      <tbody>
        {rows.map(([side, tensor, dtype, shape]) => (
          <tr key={`${side} ${tensor}`}><td>{side}</td><td class="long">{tensor}</td><td>{dtype}</td><td>{shape}</td></tr>
        ))}
      </tbody>
    </table>
  );
}

const rowsOf = (side: string, tensors: Record<string, Tensor>) =>
  Object.entries(tensors).sort().map(([name, tensor]) => [side, name, tensor.dtype, shapeOf(tensor)] as const);

const shapeOf = ({ tensor_shape: { dim, unknown_rank } }: Tensor) =>
  unknown_rank ? "any" : `[${dim.map(({ size }) => (size === "-1" ? "?" : size)).join(", ")}]`;
