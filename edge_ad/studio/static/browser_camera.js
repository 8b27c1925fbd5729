export default {
  template: `
    <div class="browser-camera">
      <video ref="video" class="live" autoplay playsinline muted></video>
      <p v-if="problem" class="bad" role="alert">{{ problem }}</p>
    </div>`,
  props: { url: String, kind: String, every: Number },
  emits: ["answer", "ready"],
  data() { return { problem: "", stream: null, timer: 0, busy: false, asked: 0, number: 0 }; },
  watch: { every() { this.pace(); } },
  beforeUnmount() { this.stop(); },
  methods: {
    async start() {
      this.problem = "";
      if (!navigator.mediaDevices) {
        this.problem = "The browser gives its camera only to http://127.0.0.1 and to https pages.";
        return;
      }
      try {
        this.stream = await navigator.mediaDevices.getUserMedia({
          video: { width: { ideal: 1920 }, height: { ideal: 1080 } }, audio: false });
      } catch (error) {
        this.problem = error.name === "NotAllowedError"
          ? "The browser does not allow the camera: allow it beside the address, then try again."
          : "The browser found no camera that it can use: is another program using it?";
        return;
      }
      this.$refs.video.srcObject = this.stream;
      await this.$refs.video.play();
      this.$emit("ready", {});
      this.pace();
    },
    stop() {
      clearInterval(this.timer);
      this.asked = 0;
      this.stream?.getTracks().forEach((track) => track.stop());
      this.stream = null;
    },
    pace() {
      clearInterval(this.timer);
      if (this.stream && this.every > 0) this.timer = setInterval(() => this.take(true), this.every);
    },
    // While a picture is on its way, a press of the button waits, and one of a series is left out.
    async take(paced = false) {
      const video = this.$refs.video;
      if (!this.stream || !video.videoWidth) return;
      if (this.busy) {
        if (!paced) this.asked += 1;
        return;
      }
      this.busy = true;
      try {
        const canvas = document.createElement("canvas");
        canvas.width = video.videoWidth;
        canvas.height = video.videoHeight;
        canvas.getContext("2d").drawImage(video, 0, 0);
        const blob = await new Promise((done) => canvas.toBlob(done, this.kind, 0.95));
        this.number += 1;
        const stamp = new Date().toISOString().replace(/[-:.]/g, "");
        const ending = this.kind === "image/png" ? "png" : "jpg";
        const answer = await fetch(this.url, { method: "PUT", body: blob,
          headers: { "X-File-Name": `browser-${stamp}-${this.number}.${ending}` } });
        this.$emit("answer", await answer.json());
      } catch (error) {
        this.$emit("answer", { error: "The picture did not arrive: is the Studio still running?" });
      } finally {
        this.busy = false;
        if (this.asked > 0) {
          this.asked -= 1;
          this.take();
        }
      }
    },
  },
};
