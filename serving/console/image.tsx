/** The image to ask about: chosen, photographed, dropped anywhere on the page, or pasted. */
import { useEffect, useState } from "preact/hooks";

const TYPES = "image/jpeg,image/png,image/gif,image/bmp"; // that TensorFlow decodes

export function ImageField({ image, onImage }: { image?: Blob; onImage: (image: Blob) => void }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    if (!image) return;
    const made = URL.createObjectURL(image);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [image]);
  useEffect(() => {
    const take = (event: Event, data: DataTransfer | null) => {
      const file = [...(data?.files ?? [])].find((each) => each.type.startsWith("image/"));
      if (event.type !== "paste" || file) event.preventDefault(); // the page stays, whatever is dropped on it
      if (file) onImage(file);
    };
    const drop = (event: DragEvent) => take(event, event.type === "drop" ? event.dataTransfer : null);
    const paste = (event: ClipboardEvent) => take(event, event.clipboardData);
    document.addEventListener("dragover", drop);
    document.addEventListener("drop", drop);
    document.addEventListener("paste", paste);
    return () => {
      document.removeEventListener("dragover", drop);
      document.removeEventListener("drop", drop);
      document.removeEventListener("paste", paste);
    };
  });
  return (
    <div class="image">
      {url ? <img src={url} alt={image instanceof File ? image.name : "the chosen image"} /> : <p class="hint">Drop an image on the page, paste one, or:</p>}
      <div class="row">
        <FileButton text="Choose an image" onImage={onImage} />
        <FileButton text="Take a photo" onImage={onImage} capture />
      </div>
      {image instanceof File && <p class="hint">{image.name}</p>}
    </div>
  );
}

function FileButton({ text, onImage, capture }: { text: string; onImage: (image: Blob) => void; capture?: boolean }) {
  return (
    <label class="button">
      {text}
      <input type="file" accept={TYPES} capture={capture ? "environment" : undefined} onChange={(event) => {
        const file = event.currentTarget.files?.[0];
        if (file) onImage(file);
        event.currentTarget.value = ""; // so that the same file can be chosen again
      }} />
    </label>
  );
}
