/** Models, versions and signatures, as the REST API describes them. */
import { ServerError, getJson } from "./api";

export interface Version {
  version: string;
  state: string;
  status: { error_code: string; error_message: string };
}

export interface Model {
  name: string;
  version_labels: Record<string, string>;
  model_version_status: Version[];
}

export interface Tensor {
  dtype: string;
  tensor_shape: { dim: { size: string }[]; unknown_rank: boolean };
}

export interface Signature {
  inputs: Record<string, Tensor>;
  outputs: Record<string, Tensor>;
}

export type Signatures = Record<string, Signature>;

/** A version or a label of a model; with neither, the newest version. */
export interface Target {
  version?: string;
  label?: string;
}

export const nameOf = ({ version, label }: Target) => label ?? (version ? `version ${version}` : "newest version");

/** All models; the one of this name where the token is not for all. */
export async function listModels(name: string): Promise<{ models: Model[]; complete: boolean }> {
  try {
    return { ...(await getJson<{ models: Model[] }>("v1/models")), complete: true };
  } catch (error) {
    if (!(error instanceof ServerError && error.status === 403)) throw error;
    if (!name) return { models: [], complete: false };
    return { models: [{ name, version_labels: {}, ...(await getJson<Pick<Model, "model_version_status">>(pathOf(name, {}))) }], complete: false };
  }
}

export const targetsOf = (model: Model): Target[] => [
  {},
  ...Object.keys(model.version_labels).map((label) => ({ label })),
  ...model.model_version_status.filter((each) => each.state === "AVAILABLE").map(({ version }) => ({ version })),
];

/** The address of a model, without a slash before it: the page may be behind a prefix. */
export function pathOf(name: string, { version, label }: Target): string {
  const choice = label !== undefined ? `/labels/${quote(label)}` : version ? `/versions/${version}` : "";
  return `v1/models/${quote(name)}${choice}`;
}

export const quote = (text: string) => encodeURIComponent(text).replace(/'/g, "%27");

export async function getSignatures(name: string, target: Target): Promise<Signatures> {
  const path = `${pathOf(name, target)}/metadata`;
  const found = await getJson<{ metadata: { signature_def: { signature_def: Signatures } } }>(path);
  return found.metadata.signature_def.signature_def;
}

/** Whether a signature answers Classify: strings in, labels with scores out. */
export const givesLabels = ({ inputs, outputs }: Signature) =>
  takesStrings(inputs) && outputs.classes?.dtype === "DT_STRING" && outputs.scores?.dtype === "DT_FLOAT";

/** Whether a signature takes an encoded image: its input's name says so, or it labels what another one takes. */
export function takesImage(signature: Signature, all: Signatures): boolean {
  return isNamedImage(signature) || (givesLabels(signature) && Object.values(all).some(isNamedImage));
}

/** The signature that a person wants first: one that labels images, else one that takes them. */
export function firstChoice(all: Signatures): string {
  const names = Object.keys(all).sort();
  const images = names.filter((name) => takesImage(all[name]!, all));
  const standard = names.includes("serving_default") ? "serving_default" : names[0];
  return images.find((name) => givesLabels(all[name]!)) ?? images[0] ?? standard ?? "";
}

const takesStrings = (inputs: Signature["inputs"]) =>
  Object.values(inputs).map(({ dtype }) => dtype).join() === "DT_STRING";

const isNamedImage = ({ inputs }: Signature) =>
  takesStrings(inputs) && /image|_bytes|jpe?g|png|photo|picture/i.test(Object.keys(inputs).join());
