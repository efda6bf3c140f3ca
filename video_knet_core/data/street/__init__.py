"""Parts of the synthetic street; `video_knet_core.data.synthetic_street` puts them together."""
