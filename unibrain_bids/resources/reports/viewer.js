"use strict";
// The viewer: NiiVue is unpacked from the page when the first one is opened.
const content = (id) => JSON.parse(document.getElementById(id).textContent);
let loading = null;

function loadLibrary() {
  loading ??= (async () => {
    const packed = Uint8Array.from(atob(content("niivue")), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const source = await new Response(stream).text();
    const script = document.createElement("script");
    script.src = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    await new Promise((done, failed) => {
      script.onload = done;
      script.onerror = failed;
      document.head.append(script);
    });
    return globalThis.niivue;
  })();
  return loading;
}

async function open(viewer) {
  const { Niivue, NVImage } = await loadLibrary();
  const canvas = viewer.querySelector("canvas");
  const { head, overlays } = content(viewer.dataset.volumes);
  const [overlay, view] = viewer.querySelectorAll("select");
  const opacity = viewer.querySelector("[data-opacity]");
  const place = viewer.querySelector("output");
  const shown = new Niivue({ backColor: [0, 0, 0, 1], crosshairColor: [1, 0.3, 0.25, 0.8], crosshairWidth: 1, show3Dcrosshair: true });
  await shown.attachToCanvas(canvas);
  shown.addVolume(await NVImage.loadFromBase64({ base64: head, name: "head.nii.gz", colormap: "gray", cal_min: 0, cal_max: 90 }));
  overlay.add(new Option("none", -1));
  overlays.forEach((item, index) => overlay.add(new Option(item.title, index)));

  const lay = async () => {
    while (shown.volumes.length > 1) shown.removeVolumeByIndex(1);
    const item = overlays[overlay.value];
    if (!item) return shown.updateGLVolume();
    const labels = await NVImage.loadFromBase64({ base64: item.volume, name: "labels.nii.gz", opacity: Number(opacity.value) });
    labels.setColormapLabel(item.colors);
    shown.addVolume(labels);
  };
  shown.onLocationChange = ({ mm, values }) => {
    const number = values[1]?.value;
    const colors = overlays[overlay.value]?.colors;
    const name = colors && number ? colors.labels[colors.I.indexOf(Math.round(number))] : "";
    place.textContent = `${[...mm].slice(0, 3).map((value) => value.toFixed(0)).join(", ")} mm ${name ?? ""}`;
  };
  overlay.value = String(Math.max(0, overlays.findIndex((item) => item.title === "structures")));
  overlay.addEventListener("change", lay);
  opacity.addEventListener("input", () => shown.volumes.length > 1 && shown.setOpacity(1, Number(opacity.value)));
  view.addEventListener("change", () => shown.setSliceType(Number(view.value)));
  const steps = { ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0], PageDown: [0, 0, -1], PageUp: [0, 0, 1] };
  canvas.addEventListener("keydown", (event) => {
    if (!steps[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    shown.moveCrosshairInVox(...steps[event.key]);
  }, true);
  await lay();
  shown.createOnLocationChange();
  canvas.focus();
}

for (const viewer of document.querySelectorAll(".viewer")) {
  const button = viewer.querySelector("[data-open]");
  button.addEventListener("click", async () => {
    button.disabled = true;
    viewer.querySelector(".stage").hidden = false;
    try {
      await open(viewer);
      button.remove();
    } catch (error) {
      viewer.querySelector(".stage").hidden = true;
      button.replaceWith(`The viewer cannot be shown here (${error.message ?? "WebGL 2 is missing"}).`);
    }
  });
}
